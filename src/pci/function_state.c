// SPDX-License-Identifier: BSD-2-Clause
/*
 * The state of a PCI function in a file (law 7): what it is, its registers, its interrupts, its gate, and what the device behind it adds. docs/state.md has the sections.
 *
 * Saving takes as long as the back end's last request, and nobody waits for it: the gate is closed by `stopped` in the order of the requests, the device says when the back end
 * has given everything back, and the state is then collected as one request. In between the function answers.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "pci/internal.h"
#include "state/state.h"

/* ---- registers by name ---- */

enum home { HOME_HEADER, HOME_POWER, HOME_PCIE, HOME_MSIX, HOME_MSI };

static const struct place {
	const char *name;
	uint8_t home, offset, width;
} places[] = {
	{ "command", HOME_HEADER, PCI_COMMAND, 2 },
	{ "status", HOME_HEADER, PCI_STATUS, 2 },
	{ "cache-line-size", HOME_HEADER, PCI_CACHE_LINE_SIZE, 1 },
	{ "interrupt-line", HOME_HEADER, PCI_INTERRUPT_LINE, 1 },
	{ "bar-0", HOME_HEADER, PCI_BASE_ADDRESS_0, 4 },
	{ "bar-1", HOME_HEADER, PCI_BASE_ADDRESS_1, 4 },
	{ "bar-2", HOME_HEADER, PCI_BASE_ADDRESS_2, 4 },
	{ "bar-3", HOME_HEADER, PCI_BASE_ADDRESS_3, 4 },
	{ "bar-4", HOME_HEADER, PCI_BASE_ADDRESS_4, 4 },
	{ "bar-5", HOME_HEADER, PCI_BASE_ADDRESS_5, 4 },
	{ "power-control", HOME_POWER, PCI_PM_CTRL, 2 },
	{ "pcie-device-control", HOME_PCIE, PCI_EXP_DEVCTL, 2 },
	{ "pcie-device-status", HOME_PCIE, PCI_EXP_DEVSTA, 2 },
	{ "pcie-link-control", HOME_PCIE, PCI_EXP_LNKCTL, 2 },
	{ "pcie-device-control-2", HOME_PCIE, PCI_EXP_DEVCTL2, 2 },
	{ "msix-control", HOME_MSIX, PCI_MSIX_FLAGS, 2 },
	{ "msi-control", HOME_MSI, PCI_MSI_FLAGS, 2 },
	{ "msi-address-low", HOME_MSI, PCI_MSI_ADDRESS_LO, 4 },
	{ "msi-address-high", HOME_MSI, PCI_MSI_ADDRESS_HI, 4 },
	{ "msi-data", HOME_MSI, PCI_MSI_DATA_64, 2 },
	{ "msi-mask", HOME_MSI, PCI_MSI_MASK_64, 4 },
};

/* Where the register is in this function; 0: nowhere. */
static uint32_t locate(const struct pci_function *function, const struct place *place)
{
	const uint32_t homes[] = { [HOME_HEADER] = 0, [HOME_POWER] = function->power_at, [HOME_PCIE] = function->pcie_at,
				   [HOME_MSIX] = function->msix_at, [HOME_MSI] = function->msi_at };
	return place->home != HOME_HEADER && !homes[place->home] ? 0 : homes[place->home] + place->offset;
}

static uint32_t word_at(const uint8_t *bytes, uint32_t at, uint32_t width)
{
	uint32_t value = 0;
	for (uint32_t i = 0; i < width; i++)
		value |= (uint32_t)bytes[at + i] << 8 * i;
	return value;
}

static bool is_device_byte(const struct pci_config *config, uint32_t at)
{
	return at < 8 * sizeof config->of_device && config->of_device[at / 8] >> at % 8 & 1 && config->writable[at];
}

/* Runs of writable bytes in the device's own capabilities, called "capability-NN" by their offset. Returns the end of the run, 0 if there is none. */
static uint32_t next_run(const struct pci_config *config, uint32_t from, uint32_t *begin, char *name, size_t size)
{
	uint32_t end;

	for (*begin = from; *begin < 256 && !is_device_byte(config, *begin); (*begin)++)
		;
	if (*begin == 256)
		return 0;
	for (end = *begin; is_device_byte(config, end); end++)
		;
	snprintf(name, size, "capability-%02x", *begin);
	return end;
}

/* Is every bit that can change in some field of the file? For the unit test of this table. */
bool pci_state_covers(const struct pci_function *function)
{
	const struct pci_config *config = &function->config;

	for (uint32_t at = 0; at < config->size; at++) {
		bool covered = is_device_byte(config, at);
		for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
			uint32_t place = locate(function, &places[i]);
			covered |= place && at >= place && at < place + places[i].width;
		}
		if ((config->writable[at] || config->w1c[at]) && !covered)
			return false;
	}
	return true;
}

static void save_registers(struct pci_function *function, struct state_writer *writer)
{
	const struct pci_config *config = &function->config;
	char name[STATE_NAME_MAX + 1];
	uint32_t begin, end = 0;

	state_begin(writer, "pci", 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		uint32_t at = locate(function, &places[i]), width = places[i].width;
		if (at && word_at(config->bytes, at, width) != word_at(config->reset, at, width))
			state_put(writer, places[i].name, word_at(config->bytes, at, width));
	}
	while ((end = next_run(config, end, &begin, name, sizeof name)))
		if (memcmp(config->bytes + begin, config->reset + begin, end - begin))
			state_put_bytes(writer, name, config->bytes + begin, end - begin);
	if (function->master_seen)
		state_put_flag(writer, "bus-master-seen", true);
	if (atomic_load(&function->intx))
		state_put_flag(writer, "interrupt-status", true);
	state_end(writer);
}

/* Into bytes, which are as after a reset. */
static int load_registers(struct pci_function *function, const struct state_reader *reader, uint8_t *bytes, bool *master_seen, bool *intx,
			  struct pintle_error *err)
{
	const struct pci_config *config = &function->config;
	struct state_fields fields;
	char name[STATE_NAME_MAX + 1];
	uint32_t begin, end = 0;

	state_fields_begin(&fields, state_find(reader, "pci", 0, NULL), "pci");
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		uint32_t at = locate(function, &places[i]), width = places[i].width;
		if (!at)
			continue;
		uint32_t reset = word_at(config->reset, at, width);
		uint32_t fixed = ~(word_at(config->writable, at, width) | word_at(config->w1c, at, width));
		uint32_t value = (uint32_t)state_get(&fields, places[i].name, reset, UINT32_MAX);
		if (width < 4)
			fixed |= ~((1u << 8 * width) - 1);
		if ((value ^ reset) & fixed)
			state_fields_fail(&fields, "the field \"%s\" is %#x: bits are set that this function does not have", places[i].name, value);
		for (uint32_t b = 0; b < width; b++)
			bytes[at + b] = (uint8_t)(value >> 8 * b);
	}
	while ((end = next_run(config, end, &begin, name, sizeof name))) {
		size_t length;
		const uint8_t *from = state_get_bytes(&fields, name, end - begin, end - begin, &length);
		for (uint32_t i = 0; from && i < length; i++)
			bytes[begin + i] = (uint8_t)((from[i] & config->writable[begin + i]) | (bytes[begin + i] & ~config->writable[begin + i]));
	}
	*master_seen = state_get_flag(&fields, "bus-master-seen", false);
	*intx = state_get_flag(&fields, "interrupt-status", false);
	return state_fields_end(&fields, err);
}

/* ---- what it is ---- */

static const struct trait {
	const char *name, *text;
	uint16_t offset, width;
} traits[] = {
	{ "vendor", "vendor", PCI_VENDOR_ID, 2 },
	{ "device", "device", PCI_DEVICE_ID, 2 },
	{ "class-revision", "class and revision", PCI_CLASS_REVISION, 4 },
	{ "subsystem-vendor", "subsystem vendor", PCI_SUBSYSTEM_VENDOR_ID, 2 },
	{ "subsystem", "subsystem", PCI_SUBSYSTEM_ID, 2 },
};

static uint64_t number_of(const struct pci_function *function, enum irq_kind kind)
{
	return irq_count(function->irq, kind);
}

static void save_identity(struct pci_function *function, struct state_writer *writer)
{
	state_begin(writer, "about", 0);
	state_put_text(writer, "program", "pintle " PINTLE_VERSION);
	state_put_text(writer, "name", function->name);
	state_end(writer);
	state_begin(writer, "function", 0);
	for (size_t i = 0; i < ARRAY_SIZE(traits); i++)
		state_put(writer, traits[i].name, word_at(function->config.reset, traits[i].offset, traits[i].width));
	state_put(writer, "config-size", function->config.size);
	state_put(writer, "msix-vectors", number_of(function, IRQ_MSIX));
	state_put(writer, "msi-vectors", number_of(function, IRQ_MSI));
	state_put(writer, "intx-lines", number_of(function, IRQ_INTX));
	state_end(writer);
}

static void same(struct state_fields *fields, const char *name, const char *text, uint64_t here)
{
	uint64_t there = state_get(fields, name, 0, UINT64_MAX);
	if (there != here)
		state_fields_fail(fields, "the %s of the saved function is %#llx, and of this one %#llx", text, (unsigned long long)there,
				  (unsigned long long)here);
}

static int check_identity(struct pci_function *function, const struct state_reader *reader, struct pintle_error *err)
{
	const struct state_section *section = state_find(reader, "function", 0, NULL);
	struct state_fields fields;

	if (!section)
		return error_set(err, -EBADMSG, "the state is none of a PCI function: there is no section \"function\"");
	state_fields_begin(&fields, section, "function");
	for (size_t i = 0; i < ARRAY_SIZE(traits); i++)
		same(&fields, traits[i].name, traits[i].text, word_at(function->config.reset, traits[i].offset, traits[i].width));
	same(&fields, "config-size", "size of configuration space", function->config.size);
	same(&fields, "msix-vectors", "number of MSI-X vectors", number_of(function, IRQ_MSIX));
	same(&fields, "msi-vectors", "number of MSI vectors", number_of(function, IRQ_MSI));
	same(&fields, "intx-lines", "number of INTx lines", number_of(function, IRQ_INTX));
	return state_fields_end(&fields, err);
}

/* ---- interrupts ---- */

#define PENDING_WORDS (IRQ_MSIX_MAX / 64)

static void save_interrupts(struct pci_function *function, struct state_writer *writer)
{
	static _Thread_local uint8_t table[16 * IRQ_MSIX_MAX];
	uint32_t vectors = irq_count(function->irq, IRQ_MSIX), words = (vectors + 63) / 64;
	uint8_t pending[8 * PENDING_WORDS];
	uint64_t any = 0, msi = irq_save_pending(function->irq, IRQ_MSI, 0);

	state_begin(writer, "irq", 0);
	if (irq_save_table(function->irq, table))
		state_put_bytes(writer, "msix-table", table, 16 * (size_t)vectors);
	for (uint32_t i = 0; i < words; i++) {
		uint64_t bits = irq_save_pending(function->irq, IRQ_MSIX, i);
		any |= bits;
		store_le64(pending + (size_t)8 * i, bits);
	}
	if (any)
		state_put_bytes(writer, "msix-pending", pending, 8 * (size_t)words);
	if (msi)
		state_put(writer, "msi-pending", msi);
	if (irq_save_level(function->irq))
		state_put_flag(writer, "intx-level", true);
	state_end(writer);
}

struct interrupts {
	const uint8_t *table, *pending;
	size_t pending_length;
	uint64_t msi;
	bool level;
};

static int load_interrupts(struct pci_function *function, const struct state_reader *reader, struct interrupts *to, struct pintle_error *err)
{
	size_t vectors = irq_count(function->irq, IRQ_MSIX), words = (vectors + 63) / 64, length;
	struct state_fields fields;

	state_fields_begin(&fields, state_find(reader, "irq", 0, NULL), "irq");
	to->table = state_get_bytes(&fields, "msix-table", 16 * vectors, 16 * vectors, &length);
	to->pending = state_get_bytes(&fields, "msix-pending", 8 * words, 8 * words, &to->pending_length);
	to->msi = state_get(&fields, "msi-pending", 0, UINT32_MAX);
	to->level = state_get_flag(&fields, "intx-level", false);
	return state_fields_end(&fields, err);
}

static void apply_interrupts(struct pci_function *function, const struct interrupts *from)
{
	if (from->table)
		irq_restore_table(function->irq, from->table);
	for (size_t i = 0; from->pending && i < from->pending_length / 8; i++)
		irq_restore_pending(function->irq, IRQ_MSIX, (uint32_t)i, load_le64(from->pending + 8 * i));
	irq_restore_pending(function->irq, IRQ_MSI, 0, from->msi);
	if (function->msi_at)
		irq_msi_set_mask(function->irq, pci_config_get(&function->config, function->msi_at + PCI_MSI_MASK_64, 4));
	irq_level(function->irq, from->level);
}

/* ---- the gate ---- */

/*
 * Conditions that close the gate of a function whose driver is running. A reader that knows nothing of them would go on at its rings: so they are a
 * section of their own, there only when one of them is set. The others are of the place and not of the function (no client, stopped), or over when it is saved.
 */
static const struct {
	const char *name;
	uint32_t condition;
} gate_conditions_saved[] = {
	{ "no-bus-master", LIFE_NO_BUS_MASTER },
	{ "not-d0", LIFE_NOT_D0 },
	{ "needs-reset", LIFE_NEEDS_RESET },
	{ "failed", LIFE_FAILED },
};

static uint32_t gate_of(const struct pci_function *function)
{
	uint32_t conditions = life_conditions(function->life), of_state = 0;

	if (conditions & LIFE_NO_DRIVER)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(gate_conditions_saved); i++)
		of_state |= conditions & gate_conditions_saved[i].condition;
	return of_state;
}

static void save_gate(struct pci_function *function, struct state_writer *writer)
{
	uint32_t conditions = gate_of(function);

	if (!conditions)
		return;
	state_begin(writer, "gate", 0);
	for (size_t i = 0; i < ARRAY_SIZE(gate_conditions_saved); i++)
		if (conditions & gate_conditions_saved[i].condition)
			state_put_flag(writer, gate_conditions_saved[i].name, true);
	state_end(writer);
}

/* The registers have been restored: what they say about the gate is what the section has to say. */
static int check_gate(struct pci_function *function, const struct state_reader *reader, struct pintle_error *err)
{
	const struct state_section *section = state_find(reader, "gate", 0, NULL);
	uint32_t conditions = gate_of(function);
	struct state_fields fields;

	state_fields_begin(&fields, section, "gate");
	for (size_t i = 0; i < ARRAY_SIZE(gate_conditions_saved); i++) {
		bool here = conditions & gate_conditions_saved[i].condition;
		if (state_get_flag(&fields, gate_conditions_saved[i].name, false) != here && (section || reader->level >= 2))
			state_fields_fail(&fields, "the condition \"%s\" is not what the registers say", gate_conditions_saved[i].name);
	}
	return state_fields_end(&fields, err);
}

/* ---- saving ---- */

struct pci_saving {
	struct pci_function *function;
	struct pci_request request;
	struct state_writer writer;
	enum life_state state;
	uint64_t disconnects;
	pci_saved_fn *done;
	void *context;
};

static void finish(struct pci_saving *saving)
{
	struct pci_function *function = saving->function;
	struct pintle_error err = { 0 };
	void *file = NULL;
	size_t length = 0;
	int result = state_finish(&saving->writer, &file, &length, &err);

	function->saving = NULL;
	pci_saved_fn *done = saving->done;
	void *context = saving->context;
	free(saving);
	done(context, result, file, length, &err);
}

static void wait_for_back_end(struct pci_saving *saving);

static void on_collected(struct pci_request *request, int result)
{
	struct pci_saving *saving = container_of(request, struct pci_saving, request);

	if (result)
		state_writer_fail(&saving->writer, result, "the function changed hands while it was saved");
	if (saving->writer.err.code != -EAGAIN) {
		finish(saving);
		return;
	}
	/* Something began again in between: a reset, and its fence. */
	state_writer_restart(&saving->writer);
	wait_for_back_end(saving);
}

static void device_saved(void *context)
{
	struct pci_saving *saving = context;
	life_release(saving->function->life);
}

static int collect(struct pci_function *function, struct pci_request *request)
{
	struct pci_saving *saving = container_of(request, struct pci_saving, request);
	struct life *life = function->life;

	if (life_state(life) != saving->state || life_count(life, LIFE_EVENT_DISCONNECT) != saving->disconnects)
		return -ECONNRESET;
	irq_take_back(function->irq);
	save_identity(function, &saving->writer);
	save_registers(function, &saving->writer);
	save_interrupts(function, &saving->writer);
	save_gate(function, &saving->writer);
	if (function->road)
		function->road->save(function->road_context, &saving->writer);
	life_hold(life);
	function->ops->save(function->device, &saving->writer, device_saved, saving);
	return 0;
}

static void back_end_is_quiet(void *context)
{
	struct pci_saving *saving = context;

	saving->request = (struct pci_request){ .kind = PCI_REQUEST_CALL, .complete = on_collected, .call.fn = collect };
	pci_function_submit(saving->function, &saving->request);
}

static void wait_for_back_end(struct pci_saving *saving)
{
	saving->function->ops->quiet(saving->function->device, back_end_is_quiet, saving);
}

static int stop(struct pci_function *function, struct pci_request *request)
{
	struct pci_saving *saving = container_of(request, struct pci_saving, request);

	saving->state = life_state(function->life);
	saving->disconnects = life_count(function->life, LIFE_EVENT_DISCONNECT);
	if (saving->state != LIFE_STATE_FREE && saving->state != LIFE_STATE_ATTACHED && saving->state != LIFE_STATE_ASKED)
		return -EBUSY;
	life_close(function->life, LIFE_STOPPED);
	return 0;
}

static void on_stopped(struct pci_request *request, int result)
{
	struct pci_saving *saving = container_of(request, struct pci_saving, request);

	if (!result) {
		wait_for_back_end(saving);
		return;
	}
	state_writer_fail(&saving->writer, result, "a function in state \"%s\" cannot be saved", life_state_name(saving->state));
	finish(saving);
}

void pci_function_set_road(struct pci_function *function, const struct pci_road_state *road, void *context)
{
	loop_assert_owner(function->owner);
	function->road = road;
	function->road_context = context;
}

int pci_function_save(struct pci_function *function, uint32_t level, pci_saved_fn *done, void *context, struct pintle_error *err)
{
	loop_assert_owner(function->owner);
	if (!function->ops->save || !function->ops->quiet || !function->ops->restore)
		return error_set(err, -ENOTSUP, "the device behind %s does not say what its state is", function->name);
	if (function->saving)
		return error_set(err, -EBUSY, "%s is being saved already", function->name);
	struct pci_saving *saving = calloc(1, sizeof *saving);
	if (!saving)
		return error_set(err, -ENOMEM, "no memory to save %s", function->name);
	state_writer_init(&saving->writer, level);
	if (saving->writer.err.code) {
		int result = error_set(err, saving->writer.err.code, "%s", saving->writer.err.text);
		free(saving);
		return result;
	}
	saving->function = function;
	saving->done = done;
	saving->context = context;
	function->saving = saving;
	saving->request = (struct pci_request){ .kind = PCI_REQUEST_CALL, .complete = on_stopped, .call.fn = stop };
	pci_function_submit(function, &saving->request);
	return 0;
}

void pci_function_resume(struct pci_function *function)
{
	loop_assert_owner(function->owner);
	life_open(function->life, LIFE_STOPPED);
	irq_reconcile(function->irq);
}

/* ---- restoring ---- */

static void undo(struct pci_function *function)
{
	function->ops->reset(function->device, LIFE_EVENT_DEVICE_RESET);
	function->master_seen = false;
	pci_config_reset(&function->config);
	pci_conditions_update(function);
	irq_reset_wanted(function->irq);
	atomic_store(&function->intx, false);
	irq_drop_pending(function->irq);
}

static int restore(struct pci_function *function, const struct state_reader *reader, struct pintle_error *err)
{
	uint8_t bytes[PCI_CONFIG_SIZE];
	struct interrupts interrupts;
	bool master_seen, intx;

	memcpy(bytes, function->config.reset, sizeof bytes);
	int result = check_identity(function, reader, err);
	if (!result && function->road)
		result = function->road->restore(function->road_context, reader, err);
	if (!result)
		result = load_registers(function, reader, bytes, &master_seen, &intx, err);
	if (!result)
		result = load_interrupts(function, reader, &interrupts, err);
	if (result)
		return result;
	memcpy(function->config.bytes, bytes, sizeof bytes);
	function->master_seen = master_seen;
	apply_interrupts(function, &interrupts);
	pci_conditions_update(function);
	atomic_store(&function->intx, intx);
	result = function->ops->restore(function->device, reader, err);
	if (!result)
		result = check_gate(function, reader, err);
	if (!result)
		result = state_all_found(reader, err);
	if (result)
		undo(function);
	return result;
}

int pci_function_restore(struct pci_function *function, const void *file, size_t length, struct pintle_error *err)
{
	struct state_reader reader;

	loop_assert_owner(function->owner);
	if (!function->ops->restore)
		return error_set(err, -ENOTSUP, "the device behind %s does not say what its state is", function->name);
	if (life_state(function->life) != LIFE_STATE_FREE || function->current || memcmp(function->config.bytes, function->config.reset, PCI_CONFIG_SIZE))
		return error_set(err, -EBUSY, "%s is not as new: a state can be restored before its first client only", function->name);
	int result = state_reader_open(&reader, file, length, err);
	if (!result) {
		result = restore(function, &reader, err);
		state_reader_close(&reader);
	}
	return result ? error_prefix(err, "cannot restore %s", function->name), result : 0;
}

// SPDX-License-Identifier: BSD-2-Clause
/*
 * A PCI function as a whole: order and settling of requests, what closes its gate, each kind of reset, handover from one client to the next.
 */
#include <stdio.h>

#include "pci_rig.h"

#define PMCSR (rig.function->power_at + PCI_PM_CTRL)
#define DEVCTL (rig.function->pcie_at + PCI_EXP_DEVCTL)
#define MSIX_CONTROL (rig.function->msix_at + PCI_MSIX_FLAGS)
#define MSI_CONTROL (rig.function->msi_at + PCI_MSI_FLAGS)
#define COMMAND_ON (PCI_COMMAND_MEMORY | PCI_COMMAND_IO | PCI_COMMAND_MASTER)

static struct life *life_of(void)
{
	return pci_function_life(rig.function);
}

static uint32_t conditions(void)
{
	return life_conditions(life_of());
}

/* A connected client whose guest has switched everything on. */
static int setup(void **state)
{
	rig_setup(state);
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	config_write(PCI_COMMAND, 2, COMMAND_ON);
	config_write(MSIX_CONTROL, 2, PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(conditions(), 0);
	return 0;
}

static void raise_vector(uint32_t vector)
{
	irq_raise(pci_function_irq(rig.function), vector);
}

/* ---- making ---- */

static void test_create_errors(void **state)
{
	static const struct { uint64_t size; unsigned bar; enum pci_bar_type type; } bars[] = {
		{ 8, 1, PCI_BAR_MEM32 }, { 48, 1, PCI_BAR_MEM32 }, { 0, 1, PCI_BAR_MEM32 }, { 512, 1, PCI_BAR_IO },
		{ 4096, 5, PCI_BAR_MEM64 }, { 4096, 1, PCI_BAR_MEM64 }, { UINT64_C(1) << 32, 1, PCI_BAR_MEM32 },
		{ 4096, 1, (enum pci_bar_type)17 },
	};
	struct pci_function *none;
	struct pintle_error err;
	struct loop *owner;
	(void)state;
	assert_int_equal(loop_create(&owner, "owner", NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bars); i++) {
		struct pci_function_options options = rig_options();
		options.bars[bars[i].bar] = (struct pci_bar_options){ .type = bars[i].type, .size = bars[i].size };
		assert_int_equal(pci_function_create(&none, &options, owner, &err), -EINVAL);
		assert_non_null(strstr(err.text, "BAR"));
	}
	struct pci_function_options options = rig_options();
	options.msix_table_offset = RIG_BAR_SIZE - 16;
	assert_int_equal(pci_function_create(&none, &options, owner, &err), -EINVAL);
	options = rig_options();
	options.msix_pba_offset = options.msix_table_offset + 8;
	assert_int_equal(pci_function_create(&none, &options, owner, &err), -EINVAL);
	options = rig_options();
	options.msix_bar = 4;
	assert_int_equal(pci_function_create(&none, &options, owner, &err), -EINVAL);
	options = rig_options();
	struct pci_capability many[12];
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct pci_capability){ .id = 9, .length = 20, .bytes = rig_capability_bytes };
	options.capabilities = many;
	options.capability_count = ARRAY_SIZE(many);
	assert_int_equal(pci_function_create(&none, &options, owner, &err), -ENOSPC);
	pci_function_destroy(NULL);
	loop_destroy(owner);
}

static void test_regions(void **state)
{
	struct pci_region_info info;
	(void)state;
	pci_function_region(rig.function, 0, &info);
	assert_int_equal(info.size, RIG_BAR_SIZE);
	assert_true(info.readable && info.writable && !info.io && info.area_fd == -1);
	pci_function_region(rig.function, 4, &info);
	assert_true(info.io);
	static const unsigned none[] = { 1, 3, 5, PCI_REGION_ROM, PCI_REGION_VGA, 9, 1000 };
	for (unsigned i = 0; i < ARRAY_SIZE(none); i++) {
		uint8_t data[4];
		pci_function_region(rig.function, none[i], &info);
		assert_int_equal(info.size, 0);
		assert_int_equal(rig_access(none[i], 0, data, 4, false), -EINVAL);
	}
	pci_function_region(rig.function, PCI_REGION_CONFIG, &info);
	assert_int_equal(info.size, 4096);
}

/* ---- accesses ---- */

/* Law 6. */
static void test_whole_accesses(void **state)
{
	static uint8_t data[PCI_ACCESS_MAX + 1];
	(void)state;
	for (unsigned i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7);
	static const uint32_t lengths[] = { 1, 2, 3, 4, 8, 17, 128, 4095, 4096 };
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint8_t back[PCI_ACCESS_MAX];
		unsigned before = rig.accesses;
		assert_int_equal(rig_access(0, 5, data, lengths[i], true), 0);
		assert_int_equal(rig.accesses, before + 1);
		assert_int_equal(rig.last.length, lengths[i]);
		assert_int_equal(rig.last.offset, 5);
		assert_int_equal(rig_access(0, 5, back, lengths[i], false), 0);
		assert_int_equal(rig.accesses, before + 2);
		assert_memory_equal(back, data, lengths[i]);
	}
	/* Too long, or out of the BAR: an error, and nothing is changed. */
	unsigned before = rig.accesses;
	assert_int_equal(rig_access(0, 0, data, PCI_ACCESS_MAX + 1, true), -EINVAL);
	assert_int_equal(rig_access(0, RIG_BAR_SIZE - 3, data, 4, true), -EINVAL);
	assert_int_equal(rig_access(0, UINT64_MAX, data, 1, true), -EINVAL);
	assert_int_equal(rig_access(0, UINT64_MAX - 1, data, 4, false), -EINVAL);
	assert_int_equal(data[0], 0xff);
	assert_int_equal(rig.accesses, before);
}

static void test_device_errors(void **state)
{
	uint8_t data[4] = { 0 };
	(void)state;
	rig.result = -EIO;
	assert_int_equal(rig_access(0, 0, data, 4, false), -EIO);
	assert_int_equal(load_le32(data), ~0u);
	rig.end_inside = true;
	memset(data, 0, sizeof data);
	assert_int_equal(rig_access(0, 0, data, 4, false), -EIO);
	assert_int_equal(load_le32(data), ~0u);
}

static void test_msix_areas(void **state)
{
	uint8_t data[32] = { 0 };
	int fd = rig_bind(IRQ_MSIX, 1);
	unsigned before = rig.accesses;
	(void)state;
	data[0] = 1;
	assert_int_equal(rig_access(0, RIG_TABLE + 16 + 12, data, 4, true), 0);
	raise_vector(1);
	assert_int_equal(rig_come(fd), 0);
	assert_int_equal(rig_access(0, RIG_PBA, data, 8, false), 0);
	assert_int_equal(load_le64(data), 2);
	assert_int_equal(rig_access(0, RIG_PBA, data, 8, true), 0);
	data[0] = 0;
	assert_int_equal(rig_access(0, RIG_TABLE + 16 + 12, data, 4, true), 0);
	assert_int_equal(rig_come(fd), 1);
	/* Over an edge: refused whole. */
	assert_int_equal(rig_access(0, RIG_TABLE - 4, data, 8, true), -EINVAL);
	assert_int_equal(rig_access(0, RIG_TABLE + 16 * RIG_VECTORS - 4, data, 8, false), -EINVAL);
	assert_int_equal(rig_access(0, RIG_PBA - 1, data, 32, false), -EINVAL);
	assert_int_equal(rig.accesses, before);
	/* Right beside them is the device's. */
	assert_int_equal(rig_access(0, RIG_TABLE - 4, data, 4, false), 0);
	assert_int_equal(rig_access(0, RIG_PBA + 8, data, 4, false), 0);
	assert_int_equal(rig_access(2, RIG_TABLE, data, 4, false), 0);
	assert_int_equal(rig.accesses, before + 3);
	close(fd);
}

static void check_silent(unsigned bar, bool silent)
{
	uint8_t data[4] = { 1, 2, 3, 4 };
	unsigned before = rig.accesses;
	assert_int_equal(rig_access(bar, 0, data, 4, true), 0);
	assert_int_equal(rig_access(bar, 0, data, 4, false), 0);
	assert_int_equal(rig.accesses, silent ? before : before + 2);
	assert_int_equal(load_le32(data), silent ? ~0u : 0x04030201u);
}

static void test_decoding(void **state)
{
	(void)state;
	check_silent(0, false);
	config_write(PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
	assert_false(pci_function_memory_enabled(rig.function));
	check_silent(0, true);
	check_silent(4, false);
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_true(pci_function_memory_enabled(rig.function));
	check_silent(0, false);
	check_silent(4, true);
}

/* ---- order ---- */

static int count_call(struct pci_function *function, struct pci_request *request)
{
	assert_ptr_equal(function, rig.function);
	assert_int_equal(request->kind, PCI_REQUEST_CALL);
	return -ENOTTY;
}

static void test_order(void **state)
{
	struct rig_request a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
	uint8_t data[4] = { 9, 9, 9, 9 }, command[2] = { 0 };
	(void)state;
	rig_completions = 0;
	rig.result = PCI_PENDING;
	rig_submit_access(&a, 0, 0, data, 4, false);
	rig_submit_access(&b, PCI_REGION_CONFIG, PCI_COMMAND, command, 2, true);
	rig_submit_reset(&c, LIFE_EVENT_DEVICE_RESET);
	d.request = (struct pci_request){ .kind = PCI_REQUEST_CALL, .complete = rig_complete, .call = { count_call } };
	pci_function_submit(rig.function, &d.request);
	turn_idle(rig.owner);
	/* None of the others has begun. */
	assert_int_equal(rig_completions, 0);
	assert_int_equal(conditions(), 0);
	assert_int_equal(rig.resets, 0);
	rig.result = 0;
	pci_function_access_done(rig.function, -EIO);
	turn_until(rig.owner, &d.complete);
	assert_int_equal(a.number, 1);
	assert_int_equal(a.result, -EIO);
	assert_int_equal(load_le32(data), ~0u);
	assert_int_equal(b.number, 2);
	assert_int_equal(c.number, 3);
	assert_int_equal(d.number, 4);
	assert_int_equal(d.result, -ENOTTY);
	assert_int_equal(rig.resets, 1);
}

static struct rig_request chained;
static uint8_t chained_data[4];
static unsigned chain_left;

static void complete_and_submit(struct pci_request *request, int result)
{
	(void)request;
	assert_int_equal(result, 0);
	if (!--chain_left) {
		chained.complete = true;
		return;
	}
	chained.request.complete = complete_and_submit;
	pci_function_submit(rig.function, &chained.request);
}

/* A road that submits the next one from inside the answer does not eat the stack. */
static void test_chain(void **state)
{
	(void)state;
	chain_left = 200000;
	chained = (struct rig_request){ 0 };
	chained.request = (struct pci_request){
		.kind = PCI_REQUEST_ACCESS, .complete = complete_and_submit,
		.access = { .offset = 0, .data = chained_data, .length = 4, .region = PCI_REGION_CONFIG },
	};
	pci_function_submit(rig.function, &chained.request);
	turn_until(rig.owner, &chained.complete);
}

/* ---- law 1: the gate ---- */

static void test_bus_master(void **state)
{
	int fd = rig_bind(IRQ_MSIX, 0);
	(void)state;
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(conditions(), LIFE_NO_BUS_MASTER);
	raise_vector(0);
	assert_int_equal(rig_come(fd), 0);
	config_write(PCI_COMMAND, 2, COMMAND_ON);
	assert_int_equal(conditions(), 0);
	assert_int_equal(rig_come(fd), 1);
	close(fd);
}

static void test_lenient(void **state)
{
	struct pci_function_options options = rig_options();
	(void)state;
	options.bus_master = PCI_BUS_MASTER_LENIENT;
	rig_start(&options);
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	for (int i = 0; i < 2; i++) {
		/* Firmware that never sets it works. */
		assert_int_equal(conditions(), 0);
		config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
		assert_int_equal(conditions(), 0);
		/* From the first time on it is meant. */
		config_write(PCI_COMMAND, 1, COMMAND_ON);
		config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
		assert_int_equal(conditions(), LIFE_NO_BUS_MASTER);
		assert_int_equal(rig_event(LIFE_EVENT_VM_RESET), 0);
	}
}

static void test_d3hot(void **state)
{
	int fd = rig_bind(IRQ_MSIX, 0);
	(void)state;
	config_write(PMCSR, 2, 3);
	assert_int_equal(conditions(), LIFE_NOT_D0);
	check_silent(0, true);
	raise_vector(0);
	assert_int_equal(rig_come(fd), 0);
	assert_int_equal(config_read(PCI_COMMAND, 2), COMMAND_ON);
	config_write(PMCSR, 2, 0);
	assert_int_equal(conditions(), 0);
	assert_int_equal(rig_come(fd), 1);
	check_silent(0, false);
	assert_int_equal(rig.resets, 0); /* No_Soft_Reset */
	close(fd);
}

static void check_answer_waits(void (*submit)(struct rig_request *), struct busy_loop *busy)
{
	struct rig_request r = { .busy = busy }, next = { .busy = busy };
	uint8_t data[4];
	busy_enter(busy);
	submit(&r);
	rig_submit_access(&next, PCI_REGION_CONFIG, 0, data, 4, false);
	turn_idle(rig.owner);
	assert_false(r.complete);
	assert_false(next.complete);
	assert_true(conditions());
	busy_leave(busy);
	turn_until(rig.owner, &next.complete);
	assert_true(r.complete);
	assert_int_equal(r.result, 0);
	assert_false(r.was_inside);
	assert_false(next.was_inside);
}

static uint8_t zeroes[4], d3hot[4] = { 3 }, flr[2] = { 0, 0x80 };

static void submit_master_off(struct rig_request *r)
{
	rig_submit_access(r, PCI_REGION_CONFIG, PCI_COMMAND, zeroes, 2, true);
}

static void submit_d3hot(struct rig_request *r)
{
	rig_submit_access(r, PCI_REGION_CONFIG, PMCSR, d3hot, 1, true);
}

static void submit_flr(struct rig_request *r)
{
	rig_submit_access(r, PCI_REGION_CONFIG, DEVCTL, flr, 2, true);
}

static void submit_device_reset(struct rig_request *r)
{
	rig_submit_reset(r, LIFE_EVENT_DEVICE_RESET);
}

static void submit_disconnect(struct rig_request *r)
{
	rig_submit_reset(r, LIFE_EVENT_DISCONNECT);
}

/* The closing access is answered, and the next one begun, when the I/O thread has left what it was doing. */
static void test_answer_waits_for_quiescence(void **state)
{
	struct busy_loop busy;
	(void)state;
	assert_int_equal(busy_start(&busy), 0);
	assert_int_equal(life_loop_add(life_of(), busy_loop_of(&busy)), 0);
	check_answer_waits(submit_master_off, &busy);
	config_write(PCI_COMMAND, 2, COMMAND_ON);
	check_answer_waits(submit_d3hot, &busy);
	config_write(PMCSR, 2, 0);
	check_answer_waits(submit_flr, &busy);
	check_answer_waits(submit_device_reset, &busy);
	check_answer_waits(submit_disconnect, &busy);
	assert_int_equal(life_state(life_of()), LIFE_STATE_FREE);
	life_loop_remove(life_of(), busy_loop_of(&busy));
	busy_stop(&busy);
}

/* The owner serves others meanwhile (law 3). */
static void test_owner_is_free(void **state)
{
	struct rig first = rig;
	struct rig_request waiting = { 0 };
	struct pci_function_options options = rig_options();
	struct pci_function *other;
	struct busy_loop busy;
	(void)state;
	assert_int_equal(busy_start(&busy), 0);
	assert_int_equal(life_loop_add(life_of(), busy_loop_of(&busy)), 0);
	assert_int_equal(pci_function_create(&other, &options, rig.owner, NULL), 0);
	busy_enter(&busy);
	submit_master_off(&waiting);
	rig.function = other;
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	config_write(PCI_COMMAND, 2, COMMAND_ON);
	check_silent(0, false);
	assert_int_equal(rig_event(LIFE_EVENT_DISCONNECT), 0);
	assert_false(waiting.complete);
	busy_leave(&busy);
	turn_until(first.owner, &waiting.complete);
	assert_false(atomic_load(&busy.abandoned));
	pci_function_destroy(other);
	rig.function = first.function;
	life_loop_remove(life_of(), busy_loop_of(&busy));
	busy_stop(&busy);
}

/* ---- resets ---- */

static void check_registers_are_reset(void)
{
	assert_int_equal(config_read(PCI_COMMAND, 2), 0);
	assert_int_equal(config_read(PCI_BASE_ADDRESS_0, 4), 0);
	assert_int_equal(config_read(MSIX_CONTROL, 2), RIG_VECTORS - 1);
	assert_int_equal(config_read(DEVCTL, 2), 0x2810);
	assert_int_equal(conditions(), LIFE_NO_BUS_MASTER);
	assert_int_equal(life_state(life_of()), LIFE_STATE_ATTACHED);
}

/* FLR and those that a client asks for: the registers, what is pending and the device are reset, the bindings stay. */
static void test_resets(void **state)
{
	static const enum life_event events[] = {
		LIFE_EVENT_FLR, LIFE_EVENT_DEVICE_RESET, LIFE_EVENT_SECONDARY_BUS_RESET, LIFE_EVENT_VM_RESET,
	};
	int fd = rig_bind(IRQ_MSIX, 0), err = rig_bind(IRQ_ERR, 0), line = rig_bind(IRQ_INTX, 0);
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(events); i++) {
		config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
		config_write(MSIX_CONTROL, 2, PCI_MSIX_FLAGS_ENABLE);
		config_write(PCI_BASE_ADDRESS_0, 4, 0xfe000000);
		raise_vector(0);
		rig.resets = 0;
		if (events[i] == LIFE_EVENT_FLR)
			config_write(DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR | 0x2810);
		else
			assert_int_equal(rig_event(events[i]), 0);
		assert_int_equal(rig.resets, 1);
		assert_int_equal(rig.reset_event, events[i]);
		assert_int_equal(life_count(life_of(), events[i]), 1);
		check_registers_are_reset();
		config_write(PCI_COMMAND, 2, COMMAND_ON);
		pci_function_set_intx(rig.function, true);
		assert_int_equal(rig_come(line), 1);
		pci_function_set_intx(rig.function, false);
		irq_mask(pci_function_irq(rig.function), IRQ_INTX, 0, 1, false);
		config_write(MSIX_CONTROL, 2, PCI_MSIX_FLAGS_ENABLE);
		assert_int_equal(rig_come(fd), 0);
		raise_vector(0);
		assert_int_equal(rig_come(fd), 1);
		assert_true(irq_signal(pci_function_irq(rig.function), IRQ_ERR));
		assert_int_equal(rig_come(err), 1);
	}
	close(fd);
	close(err);
	close(line);
}

/* What an I/O thread raises in the unit in which the reset finds it is of the life before. */
static void raise_both(void *context)
{
	(void)context;
	pci_function_set_intx(rig.function, true);
	raise_vector(0);
}

static void test_late_interrupt(void **state)
{
	struct busy_loop busy;
	struct rig_request r = { 0 };
	int fd = rig_bind(IRQ_MSIX, 0), line = rig_bind(IRQ_INTX, 0);
	(void)state;
	assert_int_equal(busy_start(&busy), 0);
	assert_int_equal(life_loop_add(life_of(), busy_loop_of(&busy)), 0);
	config_write(MSIX_CONTROL, 2, 0);
	config_write(PCI_COMMAND, 2, COMMAND_ON | PCI_COMMAND_INTX_DISABLE);
	busy.last = raise_both;
	busy_enter(&busy);
	submit_flr(&r);
	busy_leave(&busy);
	turn_until(rig.owner, &r.complete);
	assert_int_equal(config_read(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
	config_write(PCI_COMMAND, 2, COMMAND_ON);
	turn_idle(rig.owner);
	rig_come(line); /* one may have gone out before the line was dropped; what counts is that it is down */
	irq_mask(pci_function_irq(rig.function), IRQ_INTX, 0, 1, false);
	assert_int_equal(rig_come(line), 0);
	config_write(MSIX_CONTROL, 2, PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(rig_come(fd), 0);
	life_loop_remove(life_of(), busy_loop_of(&busy));
	busy_stop(&busy);
	close(fd);
	close(line);
}

/* The founding case of law 2: BIST wipes the device's copy of the table, and nobody is told. */
static void check_bist(bool table)
{
	uint8_t entry[16] = { 0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x42 };
	int fd = rig_bind(IRQ_MSIX, 2);
	for (unsigned i = 0; table && i < sizeof entry; i += 8)
		assert_int_equal(rig_access(0, RIG_TABLE + 32 + i, entry + i, 8, true), 0);
	/* An interrupt that is owed stays owed. */
	config_write(MSIX_CONTROL, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	raise_vector(2);
	config_write(PCI_BIST, 1, PCI_BIST_START);
	assert_int_equal(config_read(PCI_BIST, 1), PCI_BIST_CAPABLE);
	assert_int_equal(rig.reset_event, LIFE_EVENT_UNANNOUNCED_RESET);
	assert_int_equal(life_count(life_of(), LIFE_EVENT_UNANNOUNCED_RESET), 1);
	assert_int_equal(life_state(life_of()), LIFE_STATE_ATTACHED);
	assert_int_equal(conditions(), 0);
	assert_int_equal(config_read(PCI_COMMAND, 2), COMMAND_ON);
	config_write(MSIX_CONTROL, 2, PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(rig_come(fd), 1);
	raise_vector(2);
	assert_int_equal(rig_come(fd), 1);
	if (table) {
		assert_int_equal(rig_access(0, RIG_TABLE + 32 + 8, entry, 4, false), 0);
		assert_int_equal(load_le32(entry), 0x42);
	}
	close(fd);
}

static void test_bist(void **state)
{
	(void)state;
	check_bist(true);
}

static void test_bist_of_blind_client(void **state)
{
	(void)state;
	check_bist(false);
}

/* A device that ends its work on other threads: the reset is answered after that. */
static void test_reset_waits_for_device(void **state)
{
	struct rig_request r = { 0 };
	(void)state;
	rig.hold_in_reset = true;
	submit_flr(&r);
	turn_idle(rig.owner);
	assert_false(r.complete);
	assert_true(conditions() & LIFE_RESET);
	assert_int_equal(life_state(life_of()), LIFE_STATE_RESETTING);
	life_release(life_of());
	assert_true(r.complete);
	check_registers_are_reset();
}

static void test_both_resets_at_once(void **state)
{
	uint8_t all[4096];
	(void)state;
	memset(all, 0xff, sizeof all);
	assert_int_equal(rig_access(PCI_REGION_CONFIG, 0, all, sizeof all, true), 0);
	assert_int_equal(rig.resets, 2);
	assert_int_equal(rig.reset_event, LIFE_EVENT_FLR);
	check_registers_are_reset();
}

static void test_bad_events(void **state)
{
	(void)state;
	assert_int_equal(rig_event(LIFE_EVENT_SETTLED), -EINVAL);
	assert_int_equal(rig_event((enum life_event)500), -EINVAL);
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), -EBUSY);
	assert_int_equal(conditions(), 0);
}

/* ---- INTx ---- */

static void test_intx(void **state)
{
	int line = rig_bind(IRQ_INTX, 0);
	(void)state;
	config_write(MSIX_CONTROL, 2, 0);
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY); /* it does not depend on bus master */
	pci_function_set_intx(rig.function, true);
	assert_int_equal(rig_come(line), 1);
	assert_true(config_read(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	config_write(PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	irq_mask(pci_function_irq(rig.function), IRQ_INTX, 0, 1, false);
	assert_int_equal(rig_come(line), 0);
	assert_true(config_read(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT); /* the bit is there all the same */
	config_write(PCI_COMMAND, 2, 0);
	assert_int_equal(rig_come(line), 1);
	pci_function_set_intx(rig.function, false);
	assert_false(config_read(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	/* Each message mode takes its place. */
	assert_true(irq_uses_intx(pci_function_irq(rig.function)));
	config_write(MSI_CONTROL, 2, PCI_MSI_FLAGS_ENABLE);
	assert_int_equal(irq_conditions(pci_function_irq(rig.function)) & IRQ_MSI_ENABLED, IRQ_MSI_ENABLED);
	assert_false(irq_uses_intx(pci_function_irq(rig.function)));
	close(line);
}

/* ---- law 4: handover ---- */

static uint64_t mappings(void)
{
	struct dma_stats stats;
	dma_space_stats(pci_function_dma(rig.function), &stats);
	return stats.mappings;
}

static void map_something(void)
{
	assert_int_equal(dma_space_map(pci_function_dma(rig.function), 0x10000, 0x4000, DMA_READ | DMA_WRITE, -1, 0,
				       rig.memory, NULL), 0);
	struct dma_commit commit = { 0 };
	assert_true(dma_space_commit(pci_function_dma(rig.function), &commit, NULL));
}

static bool is_bound(enum irq_kind kind, uint32_t vector)
{
	struct irq_vector_info info;
	assert_int_equal(irq_vector_info(pci_function_irq(rig.function), kind, vector, &info), 0);
	return info.bound;
}

static void test_disconnect(void **state)
{
	struct busy_loop busy;
	struct rig_request r = { .busy = &busy }, next = { 0 };
	struct dma_user user = { 0 };
	int fd = rig_bind(IRQ_MSIX, 3), err = rig_bind(IRQ_ERR, 0);
	(void)state;
	map_something();
	assert_int_equal(busy_start(&busy), 0);
	user.loop = busy_loop_of(&busy);
	dma_space_user_add(pci_function_dma(rig.function), &user);
	assert_int_equal(life_loop_add(life_of(), busy_loop_of(&busy)), 0);
	busy_enter(&busy);
	submit_disconnect(&r);
	rig_submit_reset(&next, LIFE_EVENT_CONNECT);
	turn_idle(rig.owner);
	/* First no new work, then quiescence; until then everything is as it was. */
	assert_int_equal(life_state(life_of()), LIFE_STATE_LEAVING);
	assert_int_equal(conditions(), LIFE_NO_CLIENT | LIFE_RESET);
	assert_true(is_bound(IRQ_MSIX, 3));
	assert_int_equal(mappings(), 1);
	assert_int_equal(rig.resets, 0);
	busy_leave(&busy);
	turn_until(rig.owner, &next.complete);
	assert_true(r.complete);
	assert_false(r.was_inside);
	assert_int_equal(r.result, 0);
	assert_int_equal(next.result, 0);
	assert_false(is_bound(IRQ_MSIX, 3));
	assert_false(is_bound(IRQ_ERR, 0));
	assert_int_equal(mappings(), 0);
	assert_int_equal(rig.resets, 1);
	assert_int_equal(rig.reset_event, LIFE_EVENT_DISCONNECT);
	check_registers_are_reset(); /* and the next client has it */
	dma_space_user_remove(pci_function_dma(rig.function), &user);
	life_loop_remove(life_of(), busy_loop_of(&busy));
	busy_stop(&busy);
	close(fd);
	close(err);
}

/* A function that does not come clean is not offered again. */
static void test_quarantine(void **state)
{
	(void)state;
	rig.dirty_reset = true;
	assert_int_equal(rig_event(LIFE_EVENT_DISCONNECT), -EIO);
	assert_int_equal(life_state(life_of()), LIFE_STATE_QUARANTINED);
	assert_int_equal(rig.resets, 2); /* it was tried once more */
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), -EBUSY);
	assert_true(conditions() & LIFE_NO_CLIENT);
}

static void test_clients_in_turn(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		int fd = rig_bind(IRQ_MSIX, i % RIG_VECTORS);
		map_something();
		config_write(PCI_COMMAND, 2, COMMAND_ON | PCI_COMMAND_INTX_DISABLE);
		config_write(MSIX_CONTROL, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
		raise_vector(i % RIG_VECTORS);
		if (i % 3 == 0)
			config_write(PMCSR, 2, 3);
		assert_int_equal(rig_event(LIFE_EVENT_DISCONNECT), 0);
		assert_int_equal(life_state(life_of()), LIFE_STATE_FREE);
		assert_int_equal(mappings(), 0);
		assert_int_equal(rig_event(LIFE_EVENT_DISCONNECT), -EPROTO);
		assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
		check_registers_are_reset();
		config_write(MSIX_CONTROL, 2, PCI_MSIX_FLAGS_ENABLE);
		config_write(PCI_COMMAND, 2, COMMAND_ON);
		assert_int_equal(rig_come(fd), 0);
		close(fd);
		/* The masks of the client before, who used the table, are not this one's. */
		fd = rig_bind(IRQ_MSIX, 0);
		raise_vector(0);
		assert_int_equal(rig_come(fd), 1);
		close(fd);
	}
}

/* ---- showing ---- */

static char shown[2048];

static void show_line(void *context, const char *key, const char *value)
{
	(void)context;
	size_t used = strlen(shown);
	snprintf(shown + used, sizeof shown - used, "%s: %s\n", key, value);
}

static void test_describe(void **state)
{
	(void)state;
	shown[0] = '\0';
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	pci_function_describe(rig.function, show_line, NULL);
	assert_non_null(strstr(shown, "state: attached\n"));
	assert_non_null(strstr(shown, "gate: no-bus-master\n"));
	assert_non_null(strstr(shown, "interrupts: MSI-X, 0 of 5 bound"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create_errors),
		TEST(test_regions),
		TEST(test_whole_accesses),
		TEST(test_device_errors),
		TEST(test_msix_areas),
		TEST(test_decoding),
		TEST(test_order),
		TEST(test_chain),
		TEST(test_bus_master),
		cmocka_unit_test_teardown(test_lenient, rig_teardown),
		TEST(test_d3hot),
		TEST(test_answer_waits_for_quiescence),
		TEST(test_owner_is_free),
		TEST(test_resets),
		TEST(test_late_interrupt),
		TEST(test_bist),
		TEST(test_bist_of_blind_client),
		TEST(test_reset_waits_for_device),
		TEST(test_both_resets_at_once),
		TEST(test_bad_events),
		TEST(test_intx),
		TEST(test_disconnect),
		TEST(test_quarantine),
		TEST(test_clients_in_turn),
		TEST(test_describe),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices by name: made, plugged, changed and taken out by commands of the control line.
 */
#include "devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "glue.h"
#include "machine_check.h"
#include "memory.h"
#include "scratch.h"

#define NAME_MOST 32

enum kind { DISK_CCW, DISK_PCI, SCRATCH_PCI };

struct device {
	struct device *next;
	char name[NAME_MOST];
	enum kind kind;
	struct pintle_channel_device *channel; /* DISK_CCW */
	struct pintle_function *function; /* the others */
	struct scratch *scratch; /* SCRATCH_PCI */
	uint32_t fid;
	bool out; /* taken out: is destroyed by devices_reap */
};

static struct pintle_loop *the_loop;
static struct pintle_css *css;
static struct pintle_zpci *zpci;
static struct device *devices;
static bool running; /* the guest has begun: what comes now comes by hot-plug */

struct pintle_css *devices_css(void)
{
	return css;
}

struct pintle_zpci *devices_zpci(void)
{
	return zpci;
}

/* ---- call-backs of the library, from the loop (stored: from any thread) ---- */

static void io_pending(void *context, uint8_t isc_mask)
{
	(void)context;
	(void)isc_mask;
	glue_kick();
}

static void check_pending(void *context, bool pending)
{
	(void)context;
	machine_check_set_pending(pending);
}

static void adapter_interruption(void *context, uint8_t isc)
{
	(void)context;
	/* Suppression has been looked at by zPCI. */
	pintle_css_adapter_interruption(css, isc, false);
}

/* zPCI's events go to the guest by way of the channel subsystem: a channel report, and CHSC "store event information" with notification type 2. */
static void events(void *context)
{
	struct pintle_zpci_event event;

	(void)context;
	while (pintle_zpci_next_event(zpci, &event))
		pintle_css_event(css, 2, event.content, event.ccdf, sizeof event.ccdf);
}

static void stored(void *context, uint64_t address, uint64_t length)
{
	(void)context;
	code_stored(address, length);
}

bool devices_create(struct pintle_loop *loop)
{
	static const struct pintle_css_ops css_ops = { io_pending, check_pending };
	static const struct pintle_zpci_ops zpci_ops = { adapter_interruption, events };
	struct pintle_guest_memory guest = { .host = memory, .size = memory_size };
	struct pintle_css_options css_options = { .name = "css", .memory = &guest, .ops = &css_ops, .stored = stored };
	struct pintle_zpci_options zpci_options = { .name = "zpci", .memory = &guest, .ops = &zpci_ops, .stored = stored };
	struct pintle_error error = { 0 };

	the_loop = loop;
	if (pintle_css_create(&css, loop, &css_options, &error) < 0 || pintle_zpci_create(&zpci, loop, &zpci_options, &error) < 0) {
		fprintf(stderr, "s390: %s\n", error.text);
		return false;
	}
	return true;
}

/* ---- making and destroying ---- */

static struct device *find(const char *name)
{
	struct device *device = devices;

	while (device && strcmp(device->name, name))
		device = device->next;
	return device;
}

static void destroy(struct device *device)
{
	pintle_channel_device_destroy(device->channel);
	if (device->scratch)
		scratch_destroy(device->scratch);
	else
		pintle_function_destroy(device->function);
	free(device);
}

static int make(struct device *device, const char *path, struct pintle_error *error)
{
	struct pintle_blk_options disk = { .name = device->name, .path = path };

	switch (device->kind) {
	case DISK_CCW:
		return pintle_blk_create_ccw(&device->channel, the_loop, &disk, error);
	case DISK_PCI:
		return pintle_blk_create(&device->function, the_loop, &disk, error);
	case SCRATCH_PCI:
		device->scratch = scratch_create(the_loop, error);
		device->function = device->scratch ? scratch_function(device->scratch) : NULL;
		return device->scratch ? 0 : -ENOMEM;
	}
	return -EINVAL;
}

static int plug(struct device *device, uint32_t number, bool standby, struct pintle_error *error)
{
	if (device->kind == DISK_CCW) {
		struct pintle_css_place place = { .device_number = (uint16_t)number, .subchannel = PINTLE_CSS_ANY, .hotplug = running };
		uint32_t schid;
		return pintle_css_add(css, device->channel, &place, &schid, error);
	}
	struct pintle_zpci_place place = { .fid = number, .pchid = (uint16_t)(0x100 + number), .standby = standby, .hotplug = running };
	device->fid = number;
	return pintle_zpci_plug(zpci, device->function, &place, error);
}

static void taken_out(void *context)
{
	struct device *device = context;

	device->out = true;
	control_say("* removed %s", device->name);
}

void devices_reap(void)
{
	for (struct device **link = &devices, *device; (device = *link);) {
		if (device->scratch)
			scratch_tick(device->scratch);
		if (device->out) {
			*link = device->next;
			destroy(device);
		} else
			link = &device->next;
	}
}

static int take_out(struct device *device, bool force)
{
	return device->kind == DISK_CCW ? pintle_css_remove(css, device->channel, force, taken_out, device) :
					  pintle_zpci_unplug(zpci, device->fid, force, taken_out, device);
}

void devices_destroy(void)
{
	for (struct device *device = devices; device; device = device->next)
		if (!device->out)
			take_out(device, true);
	while (devices) {
		devices_reap();
		if (devices)
			pintle_loop_turn(the_loop, 10);
	}
	pintle_zpci_destroy(zpci);
	pintle_css_destroy(css);
}

/* ---- machine reset: the one, then the other ---- */

static struct {
	void (*done)(void *context);
	void *context;
} reset;

static void all_reset(void *context)
{
	(void)context;
	reset.done(reset.context);
}

static void css_reset(void *context)
{
	(void)context;
	if (pintle_zpci_reset(zpci, all_reset, NULL) < 0)
		fprintf(stderr, "s390: zPCI is being reset already\n");
}

void devices_reset(void (*done)(void *context), void *context)
{
	reset.done = done;
	reset.context = context;
	if (pintle_css_reset(css, css_reset, NULL) < 0)
		fprintf(stderr, "s390: the channel subsystem is being reset already\n");
}

/* ---- commands ---- */

struct words {
	char **word;
	unsigned count;
	char *answer;
	size_t size;
};

static bool complain(const struct words *words, const char *what)
{
	snprintf(words->answer, words->size, "%s", what);
	return false;
}

static bool result(const struct words *words, int error)
{
	return error < 0 ? complain(words, strerror(-error)) : true;
}

/* add KIND NAME NUMBER [PATH] [standby] */
static bool command_add(struct words *words, enum kind kind)
{
	struct pintle_error error = { 0 };
	struct device *device = calloc(1, sizeof *device);
	const char *path = kind == SCRATCH_PCI || words->count < 5 ? NULL : words->word[4];
	bool standby = !strcmp(words->word[words->count - 1], "standby");

	if (!device || find(words->word[2]) || (kind != SCRATCH_PCI && !path)) {
		free(device);
		return complain(words, "this name is in use, or there is no path");
	}
	snprintf(device->name, sizeof device->name, "%s", words->word[2]);
	device->kind = kind;
	int failed = make(device, path, &error);
	if (!failed)
		failed = plug(device, (uint32_t)strtoul(words->word[3], NULL, 16), standby, &error);
	if (failed) {
		destroy(device);
		return complain(words, error.text[0] ? error.text : strerror(-failed));
	}
	device->next = devices;
	devices = device;
	return true;
}

static bool add_ccw(struct words *words, struct device *unused)
{
	(void)unused;
	return command_add(words, DISK_CCW);
}

static bool add_pci(struct words *words, struct device *unused)
{
	(void)unused;
	return command_add(words, DISK_PCI);
}

static bool add_scratch(struct words *words, struct device *unused)
{
	(void)unused;
	return command_add(words, SCRATCH_PCI);
}

static bool remove_asked(struct words *words, struct device *device)
{
	return result(words, take_out(device, false));
}

static bool remove_forced(struct words *words, struct device *device)
{
	return result(words, take_out(device, true));
}

static bool config_changed(struct words *words, struct device *device)
{
	if (device->kind != DISK_CCW)
		return complain(words, "this is for channel devices");
	pintle_channel_device_config_changed(device->channel);
	return true;
}

/* The image has grown. */
static bool refresh(struct words *words, struct device *device)
{
	if (device->kind == SCRATCH_PCI)
		return complain(words, "this is for disks");
	return result(words, device->kind == DISK_CCW ? pintle_blk_refresh_ccw(device->channel) : pintle_blk_refresh(device->function));
}

static bool pci_error(struct words *words, struct device *device)
{
	return result(words, pintle_zpci_error(zpci, device->fid, (uint16_t)strtoul(words->word[2], NULL, 16), 0, false));
}

static bool pci_permanent_error(struct words *words, struct device *device)
{
	return result(words, pintle_zpci_error(zpci, device->fid, (uint16_t)strtoul(words->word[2], NULL, 16), 0, true));
}

static bool delay(struct words *words, struct device *device)
{
	if (!device->scratch)
		return complain(words, "this is for scratch functions");
	scratch_set_delay(device->scratch, (unsigned)strtoul(words->word[2], NULL, 0));
	return true;
}

static bool describe(struct words *words, struct device *device)
{
	struct pintle_zpci_info info;

	if (device->kind == DISK_CCW)
		return complain(words, "this is for PCI functions");
	int failed = pintle_zpci_look(zpci, device->fid, &info);
	if (failed)
		return result(words, failed);
	int length = snprintf(words->answer, words->size,
			      "state=%u handle=%08x translated=%d interrupts=%d loads=%lu stores=%lu blockstores=%lu refreshes=%lu mapped=%lu messages=%lu "
			      "interruptions=%lu ",
			      info.state, info.handle, info.translated, info.interrupts, info.loads, info.stores, info.block_stores, info.refreshes,
			      info.mapped_pages, info.messages, info.interruptions);
	if (device->scratch && length > 0 && (size_t)length < words->size)
		scratch_describe(device->scratch, words->answer + length, words->size - (size_t)length);
	return true;
}

static const struct command {
	const char *name, *object; /* object: NULL: the next word names a device */
	unsigned words;
	bool (*run)(struct words *words, struct device *device);
} commands[] = {
	{ "add", "ccw", 5, add_ccw },	      { "add", "pci", 5, add_pci },	     { "add", "scratch", 4, add_scratch },
	{ "remove", NULL, 2, remove_asked },  { "force", NULL, 2, remove_forced },   { "changed", NULL, 2, config_changed },
	{ "error", NULL, 3, pci_error },      { "fatal", NULL, 3, pci_permanent_error }, { "delay", NULL, 3, delay },
	{ "info", NULL, 2, describe },	      { "refresh", NULL, 2, refresh },
};

bool devices_command(char *words[], unsigned count, char *answer, size_t answer_size)
{
	struct words all = { words, count, answer, answer_size };

	answer[0] = 0;
	if (count == 1 && !strcmp(words[0], "running")) {
		running = true;
		return true;
	}
	for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) {
		const struct command *command = &commands[i];
		if (count < command->words || strcmp(command->name, words[0]) || (command->object && strcmp(command->object, words[1])))
			continue;
		struct device *device = command->object ? NULL : find(words[1]);
		if (!command->object && !device)
			return complain(&all, "there is no device of this name");
		return command->run(&all, device);
	}
	return complain(&all, "no such command, or too few words");
}

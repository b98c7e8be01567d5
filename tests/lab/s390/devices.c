// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices by name: made, plugged, changed and taken out by commands of the control line.
 */
#include "devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "balloon.h"
#include "control.h"
#include "glue.h"
#include "machine_check.h"
#include "memory.h"
#include "scratch.h"

#define NAME_MOST 32

/* A command's words; what it answers. */
struct words {
	char **word;
	unsigned count;
	char *answer;
	size_t size;
};

struct device {
	struct device *next;
	char name[NAME_MOST];
	const struct kind *kind;
	struct pintle_channel_device *channel; /* a channel device, or */
	struct pintle_function *function; /* a PCI function */
	struct scratch *scratch; /* behind the function; NULL for the library's own devices */
	struct balloon *balloon; /* beside the channel device that is one */
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
	struct pintle_guest_memory guest = { .host = memory, .size = memory_size, .discard = memory_discard };
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
	if (device->balloon)
		balloon_stop(device->balloon);
	pintle_channel_device_destroy(device->channel);
	balloon_destroy(device->balloon);
	if (device->scratch)
		scratch_destroy(device->scratch);
	else
		pintle_function_destroy(device->function);
	free(device);
}

static int refresh_disk_ccw(struct device *device)
{
	return pintle_blk_refresh_ccw(device->channel);
}

static int refresh_disk_pci(struct device *device)
{
	return pintle_blk_refresh(device->function);
}

static bool has_word(const struct words *words, const char *word)
{
	for (unsigned i = 4; i < words->count; i++)
		if (!strcmp(words->word[i], word))
			return true;
	return false;
}

static int make_disk_ccw(struct device *device, const struct words *words, struct pintle_error *error)
{
	struct pintle_blk_options disk = { .name = device->name, .path = words->word[4] };
	return pintle_blk_create_ccw(&device->channel, the_loop, &disk, error);
}

static int make_disk_pci(struct device *device, const struct words *words, struct pintle_error *error)
{
	struct pintle_blk_options disk = { .name = device->name, .path = words->word[4] };
	return pintle_blk_create(&device->function, the_loop, &disk, error);
}

static int make_rng_ccw(struct device *device, const struct words *words, struct pintle_error *error)
{
	struct pintle_rng_options rng = { .name = device->name };
	(void)words;
	return pintle_rng_create_ccw(&device->channel, the_loop, &rng, error);
}

static int make_rng_pci(struct device *device, const struct words *words, struct pintle_error *error)
{
	struct pintle_rng_options rng = { .name = device->name };
	(void)words;
	return pintle_rng_create(&device->function, the_loop, &rng, error);
}

static int make_balloon(struct device *device, const struct words *words, struct pintle_error *error)
{
	struct pintle_balloon_options options = {
		.name = device->name,
		.deflate_on_oom = has_word(words, "deflate-on-oom"),
		.no_reporting = has_word(words, "no-reporting"),
	};
	int failed = pintle_balloon_create_ccw(&device->channel, the_loop, &options, error);

	if (!failed && !(device->balloon = balloon_create(device->name, device->channel)))
		failed = -ENOMEM;
	return failed;
}

static int make_scratch(struct device *device, const struct words *words, struct pintle_error *error)
{
	(void)words;
	device->scratch = scratch_create(the_loop, error);
	device->function = device->scratch ? scratch_function(device->scratch) : NULL;
	return device->scratch ? 0 : -ENOMEM;
}

/* What can be made: add KIND NAME NUMBER and so many words more; further ones are options. */
static const struct kind {
	const char *name;
	unsigned more_words;
	int (*make)(struct device *device, const struct words *words, struct pintle_error *error);
	int (*refresh)(struct device *device); /* of disks: the image has grown */
} kinds[] = {
	{ "ccw", 1, make_disk_ccw, refresh_disk_ccw }, { "pci", 1, make_disk_pci, refresh_disk_pci }, { "rng-ccw", 0, make_rng_ccw, NULL },
	{ "rng-pci", 0, make_rng_pci, NULL },	       { "balloon", 0, make_balloon, NULL },	      { "scratch", 0, make_scratch, NULL },
};

static int plug(struct device *device, uint32_t number, bool standby, struct pintle_error *error)
{
	if (device->channel) {
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
	return device->channel ? pintle_css_remove(css, device->channel, force, taken_out, device) :
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

static bool complain(const struct words *words, const char *what)
{
	snprintf(words->answer, words->size, "%s", what);
	return false;
}

static bool result(const struct words *words, int error)
{
	return error < 0 ? complain(words, strerror(-error)) : true;
}

static bool add(struct words *words, struct device *unused)
{
	struct pintle_error error = { 0 };
	const struct kind *kind = kinds;
	const struct kind *end = kinds + sizeof kinds / sizeof *kinds;
	struct device *device;

	(void)unused;
	while (kind < end && strcmp(kind->name, words->word[1]))
		kind++;
	if (kind == end || words->count < 4 + kind->more_words)
		return complain(words, "there is no such kind, or a path is missing");
	device = find(words->word[2]) ? NULL : calloc(1, sizeof *device);
	if (!device)
		return complain(words, "this name is in use");
	snprintf(device->name, sizeof device->name, "%s", words->word[2]);
	device->kind = kind;
	int failed = kind->make(device, words, &error);
	if (!failed)
		failed = plug(device, (uint32_t)strtoul(words->word[3], NULL, 16), has_word(words, "standby"), &error);
	if (failed) {
		destroy(device);
		return complain(words, error.text[0] ? error.text : strerror(-failed));
	}
	device->next = devices;
	devices = device;
	return true;
}

static bool remove_by(struct words *words, struct device *device, bool force)
{
	/* Whether it met an access under way. */
	if (device->scratch)
		snprintf(words->answer, words->size, "underway=%d", scratch_is_busy(device->scratch));
	return result(words, take_out(device, force));
}

static bool remove_asked(struct words *words, struct device *device)
{
	return remove_by(words, device, false);
}

static bool remove_forced(struct words *words, struct device *device)
{
	return remove_by(words, device, true);
}

static bool config_changed(struct words *words, struct device *device)
{
	if (!device->channel)
		return complain(words, "this is for channel devices");
	pintle_channel_device_config_changed(device->channel);
	return true;
}

/* The image has grown. */
static bool refresh(struct words *words, struct device *device)
{
	if (!device->kind->refresh)
		return complain(words, "this is for disks");
	return result(words, device->kind->refresh(device));
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

/* Commands of balloons: the words after the name. */
static bool on_balloon(struct words *words, struct device *device)
{
	if (!device->balloon)
		return complain(words, "this is for balloons");
	return result(words, balloon_command(device->balloon, words->word[0], words->word + 2, words->count - 2, words->answer, words->size));
}

static bool describe_channel(struct words *words, struct device *device)
{
	if (device->balloon)
		balloon_describe(device->balloon, words->answer, words->size);
	else if (device->kind->make == make_rng_ccw)
		snprintf(words->answer, words->size, "bytes=%lu", pintle_rng_bytes_ccw(device->channel));
	else
		return complain(words, "there are no figures of this one");
	return true;
}

static bool describe(struct words *words, struct device *device)
{
	struct pintle_zpci_info info;

	if (device->channel)
		return describe_channel(words, device);
	int failed = pintle_zpci_look(zpci, device->fid, &info);
	if (failed)
		return result(words, failed);
	int length = snprintf(words->answer, words->size,
			      "state=%u handle=%08x translated=%d interrupts=%d loads=%lu stores=%lu blockstores=%lu refreshes=%lu mapped=%lu messages=%lu "
			      "interruptions=%lu ",
			      info.state, info.handle, info.translated, info.interrupts, info.loads, info.stores, info.block_stores, info.refreshes,
			      info.mapped_pages, info.messages, info.interruptions);
	if (length < 0 || (size_t)length >= words->size)
		return complain(words, "no room");
	if (device->scratch)
		scratch_describe(device->scratch, words->answer + length, words->size - (size_t)length);
	else if (device->kind->make == make_rng_pci)
		snprintf(words->answer + length, words->size - (size_t)length, "bytes=%lu", pintle_rng_bytes(device->function));
	return true;
}

static const struct command {
	const char *name;
	bool named; /* the next word names a device */
	unsigned words;
	bool (*run)(struct words *words, struct device *device);
} commands[] = {
	{ "add", false, 4, add },	      { "remove", true, 2, remove_asked }, { "force", true, 2, remove_forced },	     { "changed", true, 2, config_changed },
	{ "error", true, 3, pci_error },      { "fatal", true, 3, pci_permanent_error }, { "delay", true, 3, delay },	     { "info", true, 2, describe },
	{ "refresh", true, 2, refresh },      { "target", true, 3, on_balloon },   { "hint", true, 3, on_balloon },	     { "stats", true, 2, on_balloon },
	{ "storm", true, 4, on_balloon },     { "calm", true, 3, on_balloon },
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
		if (count < command->words || strcmp(command->name, words[0]))
			continue;
		struct device *device = command->named ? find(words[1]) : NULL;
		if (command->named && !device)
			return complain(&all, "there is no device of this name");
		return command->run(&all, device);
	}
	return complain(&all, "no such command, or too few words");
}

// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the scenarios share: a `pintle serve` process of their own on a temporary socket and image, checks that say why they failed, time, and what
 * can be seen of the server from outside.
 *
 * A scenario is straight-line code: the first check that fails prints its reason, ends the server and the program.
 */
#ifndef FUNCTIONAL_RIG_H
#define FUNCTIONAL_RIG_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <pintle/error.h>

#include "base/num.h"
#include "drive/virtio_blk.h"

#define STATUS_PASSED 0
#define STATUS_FAILED 1
#define STATUS_SKIPPED 77

/* Ends only a test that hangs; nothing is decided by it. */
#define PATIENCE_MS scenario.patience_ms
/* "At once", with a disk that takes seconds: far more than it needs, far less than the disk. */
#define AT_ONCE_MS 250

struct scenario_options {
	const char *program; /* pintle */
	bool packed, polling, kick_by_fd, table_in_bar, in_order;
	bool lenient;
	uint64_t seed;
	int patience_ms;
};
extern struct scenario_options scenario;

struct scenario_entry {
	const char *name;
	void (*run)(void);
	const char *text;
};
extern const struct scenario_entry gate_scenarios[], interrupt_scenarios[], reset_scenarios[], fence_scenarios[], client_scenarios[],
	mapping_scenarios[], message_scenarios[], config_scenarios[], ending_scenarios[], inject_scenarios[], state_scenarios[];

/* ---- checks ---- */

_Noreturn void failed(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void skipped(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define fail(...) failed(__FILE__, __LINE__, __VA_ARGS__)
#define check(condition, ...)                \
	do {                                 \
		if (!(condition))            \
			fail(__VA_ARGS__);   \
	} while (0)
extern struct pintle_error err;
/* A call of drive/ that must not fail. */
#define must(call)                                                                          \
	do {                                                                                \
		long must_result = (long)(call);                                            \
		if (must_result < 0)                                                        \
			fail("%s: %s (%ld)", #call, err.code ? err.text : "", must_result); \
	} while (0)
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- time ---- */

double now_ms(void);
void sleep_ms(double ms);
uint64_t random_next(uint64_t *state);

/* ---- the server ---- */

#define RIG_DEVICES 4

struct rig_device {
	char options[256]; /* further keys of --device, "" or "delay=1s,queues=2" */
	uint64_t image_size; /* 0: no image, the options say what backs it */
	char image[128], socket[128];
};

struct rig {
	struct rig_device devices[RIG_DEVICES];
	unsigned device_count;
	unsigned io_threads; /* 0: as many as the server has of itself */
	char folder[64], log[128];
	pid_t pid;
};

/* Starts a server with these devices and waits until it is ready. There is one rig at a time; failed() ends it. */
void rig_start(struct rig *rig);
/* How many requests of a queue the server has taken since it began; and a wait until it has taken more, however loaded the machine is. */
uint64_t rig_taken(const struct rig *rig, const char *id, unsigned queue);
void rig_await_taken(const struct rig *rig, const char *id, unsigned queue, uint64_t count);
/* Ends it by SIGTERM: it has to exit with 0. */
void rig_end(struct rig *rig);
/* Ends it without ceremony, for a server whose disk takes longer than the test. */
void rig_kill(struct rig *rig);
bool rig_logged(const struct rig *rig, const char *text);
/* Adds a device; options may be NULL. image_size 0: none. Returns its index. */
unsigned rig_device(struct rig *rig, uint64_t image_size, const char *format, ...) __attribute__((format(printf, 3, 4)));

struct drive_client *rig_connect(const struct rig *rig, unsigned device);
struct drive_client *rig_connect_as(const struct rig *rig, unsigned device, const struct drive_client_options *options);
/* The options of the command line applied: ring, kicks, interrupts. */
struct drive_blk_options rig_blk_options(void);
struct drive_blk *rig_open(struct drive_client *client, const struct drive_blk_options *options);

/* ---- what can be seen of it from outside ---- */

struct footprint {
	unsigned descriptors, guest_maps, threads;
};
struct footprint rig_footprint(const struct rig *rig);

void image_fill(const char *path, uint64_t offset, uint64_t length, uint8_t byte);
bool image_is(const char *path, uint64_t offset, uint64_t length, uint8_t byte);

/* ---- guest memory ---- */

struct picture {
	uint8_t *bytes;
	const struct drive_memory *memory;
};
struct picture picture_take(const struct drive_memory *memory);
void picture_restore(const struct picture *picture);
/* Offset of the first byte that is different now, or -1. */
int64_t picture_compare(const struct picture *picture);
void picture_free(struct picture *picture);

/* ---- the driver ---- */

/* Waits for one interrupt on the queue's vector at least; fails, saying `what`, if none comes. Returns how many. */
int64_t await_interrupt(struct drive_blk *blk, unsigned queue, const char *what);
/* Is it true that none comes for ms? */
bool no_interrupt(struct drive_blk *blk, unsigned queue, int ms);
/* One request, published with a kick whether the device wants it or not. */
void put(struct drive_blk *blk, unsigned queue, unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes);
void kick_always(struct drive_blk *blk, unsigned queue);
/* Collects until count requests of the queue have completed; each must have status OK. Fails, saying what, if they do not come. */
void collect(struct drive_blk *blk, unsigned queue, unsigned count, const char *what);
/* One read from slot 0 of queue 0, checked for the status. */
void one_read(struct drive_blk *blk, uint64_t sector, uint32_t bytes, const char *what);
/* Garbage everywhere in guest memory; in the rings such that a device that looks at them finds a chain without end. */
void fill_with_garbage(struct drive_blk *blk);
/* Does the ring tell the driver not to kick (the device is polling, or busy)? */
bool kicks_are_off(const struct drive_blk *blk, unsigned queue);
/* The server is made to poll the queue for 30 ms after its last work at least, or (not polling) to sleep. */
void warm_up(struct drive_blk *blk, unsigned queue);
uint8_t status_of(struct drive_blk *blk);
void check_healthy(struct drive_blk *blk, const char *when);

/* Brings the device up again after a reset without one SET_IRQS: what the client has bound must still be bound. */
void restart_keeping_triggers(struct drive_blk *blk, bool bus_master);
/* Interrupts, exactly one each, for some requests, one after the other. */
void count_interrupts(struct drive_blk *blk, const char *when);

#endif

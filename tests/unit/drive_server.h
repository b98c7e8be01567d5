// SPDX-License-Identifier: BSD-2-Clause
/*
 * A small vfio-user server with a virtio-blk function, for tests of the driver's side alone: one thread, one client,
 * a disk in memory, no defence against anything.
 */
#ifndef DRIVE_SERVER_H
#define DRIVE_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "drive_model.h"

#define SERVER_QUEUES 4
#define SERVER_VECTORS 8
#define SERVER_QUEUE_SIZE 128
#define SERVER_DISK (1u << 20)
/* BAR 3 is a register file for tests: what is written at this offset makes the server read 8 bytes of guest memory
 * there, add 1, write them back, all before it answers. */
#define SERVER_POKE 0x100
/* An 8-byte write here in configuration space: the server asks for 8 bytes of guest memory at that address, then
 * answers the access, then waits for the bytes and shows them at offset 8 of BAR 3. */
#define SERVER_CONFIG_POKE 0xff0
#define SERVER_DEVICE_ID 0x1042
#define SERVER_BAR0_SIZE 0x4000u /* common 0, ISR 0x1000, device 0x2000, notify 0x3000 */
#define SERVER_BAR3_SIZE 0x1000u

struct server_options {
	bool poll; /* looks at the rings all the time */
	bool null; /* moves no data */
	bool twin;
	bool bare_version; /* answers VERSION with 4 bytes */
	uint64_t features; /* beside VERSION_1 */
};

struct server_map {
	uint64_t address, size;
	uint8_t *host; /* NULL: by message */
};

struct server_queue {
	uint16_t size, vector, enabled;
	uint64_t areas[3];
	struct model_queue ring;
	bool running;
	int doorbell; /* eventfd */
};

struct server {
	struct server_options o;
	int fd, twin;
	pthread_t thread;
	uint8_t config[4096], bar3[4096];
	struct server_map maps[16];
	int vectors[5][SERVER_VECTORS]; /* by interrupt index; -1 */
	struct server_queue queues[SERVER_QUEUES];
	uint32_t feature_select, driver_select, queue_select;
	uint64_t driver_features;
	uint8_t status, isr;
	uint16_t config_vector;
	uint8_t *disk;
	uint16_t dma_id;
	uint8_t generation; /* counts up by itself for the first reads, to test that drivers read again */
	unsigned generation_changes;
	/* for tests to look at, when the server is stopped or known to be idle */
	_Atomic unsigned set_irqs, resets, kicks;
};

/* Serves fd in a thread until the client goes. */
struct server *server_start(int fd, const struct server_options *o);
void server_stop(struct server *s); /* after the client has closed */

/* ---- between the server's two files ---- */

void *server_translate(void *opaque, uint64_t address, uint64_t length);
void server_signal_vector(struct server *s, uint16_t vector);
void server_run_queue(struct server *s, struct server_queue *q);
void server_run_all(struct server *s);
void server_reset_device(struct server *s);
uint64_t server_common_read(struct server *s, uint64_t at);
void server_common_write(struct server *s, uint64_t at, uint64_t v);
void server_make_config(struct server *s);
void server_config_write(struct server *s, uint64_t at, const uint8_t *data, uint32_t count);

#endif

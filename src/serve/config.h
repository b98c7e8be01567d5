// SPDX-License-Identifier: BSD-2-Clause
/*
 * What `pintle serve` is told: devices, each with the road that carries it, and the process's own settings. Filled from the command line and from a
 * file by one table of keys.
 */
#ifndef SERVE_CONFIG_H
#define SERVE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <pintle/error.h>

struct serve_socket {
	char *path; /* NULL with fd */
	int fd; /* a listening socket that is open already, -1: none */
	unsigned mode; /* of the socket's file */
	char *owner, *group; /* of the socket's file; NULL: this process's */
};

struct road_kind;

struct serve_road {
	const struct road_kind *kind; /* NULL: none was given */
	/* vfio-user */
	struct serve_socket socket;
	/* xen: the same for all devices of a process */
	unsigned slots; /* enum xen_slots */
	unsigned on_stop; /* choices of keys.c */
};

struct device_kind;

struct serve_device {
	const struct device_kind *kind;
	char *id;
	unsigned bus_master; /* enum pci_bus_master_policy */
	/* virtio */
	unsigned queue_size;
	bool in_order, packed, msix, access_platform;
	/* blk */
	char *path, *backend, *serial;
	uint64_t size; /* bytes, for backends without a path */
	unsigned queues, block_size;
	unsigned direct; /* enum block_direct */
	uint64_t poll_ns;
	uint64_t delay_ns; /* for trying a slow disk */
	unsigned fail, fail_on; /* choices of keys.c: for trying a broken one */
	uint64_t fail_after, fail_count;
	bool read_only, share, zero_copy, delay_before;
	/* rng */
	uint64_t rate; /* bytes a second; 0: no limit */
	/* balloon */
	bool deflate_on_oom, stats, hinting, reporting;
	/* host, host-xen */
	char *address;
	uint64_t check_ns;
	unsigned bars; /* enum host_bars */
	bool permissive;
	struct serve_road road;
};

struct serve_control {
	struct serve_socket socket; /* where it listens */
	bool given;
	unsigned allow_uid, allow_gid; /* UINT32_MAX: nobody besides root and this process's user */
};

struct serve_config {
	struct serve_device *devices;
	size_t device_count;
	unsigned io_threads, control_threads;
	struct serve_control control;
	bool sandbox; /* a seccomp filter after set-up */
};

void serve_config_init(struct serve_config *config);
void serve_config_release(struct serve_config *config);

/* `blk,path=disk.img,id=d0`: key=value pairs with commas between; a comma in a value is written twice. */
int serve_config_device(struct serve_config *config, const char *text, struct pintle_error *err);
/* `vfio-user,path=/run/d0.sock`: belongs to the device before it; what the road takes is its own (road.h). */
int serve_config_road(struct serve_config *config, const char *text, struct pintle_error *err);
/* `path=/run/pintle/control,mode=0660` */
int serve_config_control(struct serve_config *config, const char *text, struct pintle_error *err);
/* A JSON file with the same keys: {"devices": [{"type": "blk", "path": ..., "road": {"type": "vfio-user", ...}}]}. */
int serve_config_file(struct serve_config *config, const char *path, struct pintle_error *err);
/* Is everything there, and does it fit together? Also gives devices without an id one (d0, d1, ...). */
int serve_config_check(struct serve_config *config, struct pintle_error *err);

/* ---- for the two parsers ---- */

enum serve_key_kind { KEY_STRING, KEY_BOOL, KEY_SIZE, KEY_NUMBER, KEY_MODE, KEY_CHOICE, KEY_TIME, KEY_FD };

struct serve_key {
	const char *name;
	enum serve_key_kind kind;
	size_t offset;
	uint64_t least, most;
	const char *const *choices; /* KEY_CHOICE: NULL-terminated, the index is stored */
	const char *text;
};
extern const struct serve_key serve_common_keys[], serve_function_keys[], serve_virtio_keys[]; /* of every device, of those that are PCI functions here, of virtio devices */
extern const struct serve_key serve_blk_keys[], serve_rng_keys[], serve_balloon_keys[], serve_host_keys[], serve_host_xen_keys[];
extern const struct serve_key serve_vfio_user_keys[], serve_xen_keys[], serve_control_keys[], serve_global_keys[];
/* Sets one key of the object, from one of the tables (up to NULL); the error names the key and what it takes. */
int serve_key_set(const struct serve_key *const *tables, void *object, const char *name, const char *value, struct pintle_error *err);
int serve_global_key_set(struct serve_config *config, const char *name, const char *value, struct pintle_error *err);
struct serve_device *serve_config_add_device(struct serve_config *config, const char *type, struct pintle_error *err);
/* Which road this is; its keys are to be set then. */
int serve_config_set_road(struct serve_road *road, const char *type, struct pintle_error *err);
/* Prints the keys with their meaning, for --help. */
void serve_keys_describe(const struct serve_key *keys, void (*line)(void *context, const char *key, const char *text), void *context);

#endif

// SPDX-License-Identifier: BSD-2-Clause
/*
 * A PCI function: what a road presents to a guest and what a device model (or a virtio transport) stands behind.
 *
 * It joins the parts: configuration space by table, BARs, capabilities, the interrupt set, the DMA space and the life. Everything that reaches it from
 * a road — accesses, resets, interrupt set-up, connect and disconnect — goes through one queue of requests and applies in the order
 * of arrival; a request is answered when the function has settled (life/life.h), and the next one begins after that. Nothing waits.
 *
 * Owner thread only unless said otherwise.
 */
#ifndef PCI_FUNCTION_H
#define PCI_FUNCTION_H

#include <stdbool.h>
#include <stdint.h>

#include <pintle/error.h>

#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "irq/irq.h"
#include "life/life.h"
#include "memory/dma.h"

#define PCI_BARS 6
#define PCI_CONFIG_SIZE 4096u
/* Law 6: the longest access to a register region that is passed on whole. */
#define PCI_ACCESS_MAX 4096u

/* Regions as vfio numbers them. */
enum pci_region { PCI_REGION_BAR0 = 0, PCI_REGION_ROM = 6, PCI_REGION_CONFIG = 7, PCI_REGION_VGA = 8, PCI_REGIONS = 9 };

struct pci_function;
struct state_reader;
struct state_writer;

/* ---- requests; made by a road, the road's until complete is called ---- */

enum pci_request_kind { PCI_REQUEST_ACCESS, PCI_REQUEST_RESET, PCI_REQUEST_CALL };

struct pci_request {
	struct list link; /* the function's */
	enum pci_request_kind kind;
	/* Called once by the owner, perhaps from inside pci_function_submit: 0 or a negative errno. */
	void (*complete)(struct pci_request *request, int result);
	union {
		struct { /* PCI_REQUEST_ACCESS */
			uint64_t offset;
			uint8_t *data; /* length bytes, the road's, valid until complete */
			uint32_t length; /* 1 to PCI_ACCESS_MAX, or the region's transfer size for memory-like regions */
			uint8_t region; /* enum pci_region */
			bool write;
		} access;
		struct { /* PCI_REQUEST_RESET */
			enum life_event event; /* DEVICE_RESET, SECONDARY_BUS_RESET, UNANNOUNCED_RESET, VM_RESET, CONNECT, DISCONNECT */
		} reset;
		struct { /* PCI_REQUEST_CALL: run in order with the others, answered when settled (SET_IRQS) */
			int (*fn)(struct pci_function *function, struct pci_request *request);
		} call;
	};
	struct life_wait wait; /* the function's */
	int result; /* the function's */
};

/* Queues the request; it may complete before this returns. */
void pci_function_submit(struct pci_function *function, struct pci_request *request);

/* ---- the device behind the function ---- */

struct pci_io_fd {
	uint64_t offset, datamatch;
	uint32_t size;
	bool match;
	int fd;
};

struct pci_device_ops {
	/*
	 * An access to a BAR (or the ROM), whole (law 6). Returns 0 or a negative errno (the road reports it; reads then give all-ones); or
	 * PCI_PENDING, and calls pci_function_access_done later, from the owner's thread. Must not block. May close the gate, raise, reset.
	 */
	int (*bar_access)(void *device, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length, bool write);
	/*
	 * A reset of the whole function. Cannot fail. What has to be done on I/O threads is begun here under life_hold / life_release. The function's
	 * own registers, pending interrupts and gate conditions are reset by the caller. For UNANNOUNCED_RESET device state that the
	 * case leaves alone stays. For DISCONNECT everything that belongs to the client goes.
	 */
	void (*reset)(void *device, enum life_event event);
	/* The guest's view of a field in the device's own capability changed; may be NULL. offset is within configuration space. A window in
	 * configuration space (virtio's PCI configuration access) is served by these two: claimed registers do not go to the table. */
	bool (*config_read)(void *device, uint32_t offset, uint8_t *data, uint32_t length);
	bool (*config_write)(void *device, uint32_t offset, const uint8_t *data, uint32_t length);
	/* ioeventfds of a BAR: fills up to max entries, returns how many there are. The descriptors stay the device's. May be NULL. */
	unsigned (*io_fds)(void *device, unsigned bar, struct pci_io_fd *fds, unsigned max);
	/* Are non-posted requests pending (PCIe Device Status, Transactions Pending)? May be NULL. */
	bool (*transactions_pending)(void *device);
	/*
	 * Saved state (law 7); all three NULL: this device has none that it can say. quiet calls done, from the owner's loop or at once, when no request is with the back
	 * end; the gate is closed by `stopped`. save writes the device's sections, then calls done likewise; what goes wrong is the writer's error, -EAGAIN where
	 * the device is not quiet any more. restore: the function is as new and its own registers are in place; on an error a reset follows.
	 */
	void (*quiet)(void *device, void (*done)(void *context), void *context);
	void (*save)(void *device, struct state_writer *writer, void (*done)(void *context), void *context);
	int (*restore)(void *device, const struct state_reader *reader, struct pintle_error *err);
	/* Prints `key: value` lines for show; may be NULL. */
	void (*describe)(void *device, void (*line)(void *context, const char *key, const char *value), void *context);
	/* ---- physical functions; all may be NULL ---- */
	/* The guest has written configuration space, and the registers have taken it. What has to follow below is begun here, under life_hold where the answer waits for it. */
	void (*config_written)(void *device);
	/* Does it answer? While it does not, reads give all-ones and writes go nowhere (law 8: a reset that takes its time). */
	bool (*ready)(void *device);
	/* A client has connected, and will be attached: by this socket, which is the road's. */
	void (*client)(void *device, int socket);
	/* At the end of a handover: is nothing of the client left in the hardware? */
	bool (*clean)(void *device);
};

#define PCI_PENDING 1
/* Ends an access for which bar_access returned PCI_PENDING. There is at most one of a function. */
void pci_function_access_done(struct pci_function *function, int result);

/* ---- making one ---- */

enum pci_bar_type { PCI_BAR_NONE, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_MEM64_PREFETCH, PCI_BAR_IO };

struct pci_bar_options {
	enum pci_bar_type type;
	uint64_t size; /* a power of two, at least 16 (memory) or 4 (I/O) */
	/* An area that clients may map; fd -1 where there is none. The descriptor stays the device's. Offsets are page-aligned. */
	struct pci_bar_area {
		uint64_t offset, size;
	} areas[4];
	unsigned area_count;
	int area_fd;
	uint64_t area_fd_offset; /* where the BAR begins in it */
};

enum pci_bus_master_policy { PCI_BUS_MASTER_STRICT, PCI_BUS_MASTER_LENIENT };

struct pci_capability {
	uint8_t id; /* vendor-specific (9) for virtio */
	uint8_t length; /* whole, with id and next */
	const uint8_t *bytes; /* from the id on; next is filled in */
	const uint8_t *write_mask; /* bits the guest may write, or NULL for none */
	uint32_t *placed_at; /* if not NULL: where it went */
};

struct pci_function_options {
	const char *name; /* for logs */
	uint16_t vendor_id, device_id, subsystem_vendor_id, subsystem_id;
	uint8_t revision_id;
	uint32_t class_code; /* 24 bits */
	struct pci_bar_options bars[PCI_BARS];
	struct irq_options irq;
	unsigned msix_bar; /* with irq.msix_vectors: the BAR that holds table and PBA */
	uint32_t msix_table_offset, msix_pba_offset; /* 8-aligned; the function serves these areas itself */
	bool soft_reset; /* D3hot to D0 resets it (No_Soft_Reset = 0), as POWER_RESET */
	bool no_pcie; /* conventional PCI: no PCIe capability, so no FLR */
	const uint8_t *extended; /* extended capabilities, read-only: what stands from 0x100 on; NULL: none */
	uint32_t extended_length;
	enum pci_bus_master_policy bus_master;
	const struct pci_capability *capabilities;
	unsigned capability_count;
	const struct pci_device_ops *ops;
	void *device;
};

int pci_function_create(struct pci_function **out, const struct pci_function_options *options, struct loop *owner,
			struct pintle_error *err);
/* No request may be queued, and not from inside complete. NULL is accepted. */
void pci_function_destroy(struct pci_function *function);

/* ---- what a road asks ---- */

struct loop *pci_function_owner(const struct pci_function *function);
struct life *pci_function_life(const struct pci_function *function);
struct irq_set *pci_function_irq(const struct pci_function *function);
struct dma_space *pci_function_dma(const struct pci_function *function);
struct log_source *pci_function_log(struct pci_function *function);
const char *pci_function_name(const struct pci_function *function);

struct pci_region_info {
	uint64_t size; /* 0: there is none */
	bool readable, writable;
	const struct pci_bar_area *areas;
	unsigned area_count;
	int area_fd;
	uint64_t area_fd_offset;
	bool io;
};
/* A client has come, by this socket; before the CONNECT. */
void pci_function_client(struct pci_function *function, int socket);
void pci_function_region(const struct pci_function *function, unsigned region, struct pci_region_info *info);
unsigned pci_function_io_fds(struct pci_function *function, unsigned bar, struct pci_io_fd *fds, unsigned max);
void pci_function_describe(struct pci_function *function, void (*line)(void *, const char *, const char *), void *context);

/* ---- what a tester asks, from inside a PCI_REQUEST_CALL (inject.c) ---- */

/* Bus master changes without the guest having written it. */
void pci_inject_bus_master(struct pci_function *function, bool on);
/* The device's copy of the MSI-X table is lost, without any reset, and found to be. */
void pci_inject_lost_table(struct pci_function *function);

/* ---- saved state (law 7) ---- */

/*
 * Stops the function (LIFE_STOPPED), waits for the back end without blocking anybody, and gives done the file, malloc'ed and done's own (or result < 0 and err).
 * 0: done will be called, once, from the owner's loop or from inside. No request of the function is held up but for the moment of collecting.
 * The function stays stopped: it is destroyed next, loses its client, or is resumed.
 */
typedef void pci_saved_fn(void *context, int result, void *file, size_t length, const struct pintle_error *err);
int pci_function_save(struct pci_function *function, uint32_t level, pci_saved_fn *done, void *context, struct pintle_error *err);
/* It was saved in vain: goes on where it stopped. */
void pci_function_resume(struct pci_function *function);
/* On a function that has had no client yet. On an error it is as new, and err says what differs. */
int pci_function_restore(struct pci_function *function, const void *file, size_t length, struct pintle_error *err);

/* What a road has to remember of its function, as sections of the function's file. */
struct pci_road_state {
	/* What goes wrong is the writer's error. */
	void (*save)(void *context, struct state_writer *writer);
	/* Before anything of the function is restored: looks at the sections and takes what it needs. */
	int (*restore)(void *context, const struct state_reader *reader, struct pintle_error *err);
};
void pci_function_set_road(struct pci_function *function, const struct pci_road_state *road, void *context); /* NULL: none */

/* ---- what a device asks ---- */

/* Direct look at the guest-visible registers; for tests and show. */
uint32_t pci_function_config_peek(const struct pci_function *function, uint32_t offset, uint32_t length);
/* Sets the Interrupt Status bit and drives INTx: the device's interrupt status is not zero. Any thread. */
void pci_function_set_intx(struct pci_function *function, bool asserted);
bool pci_function_memory_enabled(const struct pci_function *function);

#endif

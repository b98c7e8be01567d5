// SPDX-License-Identifier: BSD-2-Clause
/*
 * A PCI function with a device model of yours behind it. Configuration space, capabilities, interrupt modes, resets, DMA mappings and the order in
 * which all of it happens are the library's; the registers in the BARs and what they do are yours.
 *
 * A function is owned by its loop: create it, and make every call here, on the loop's thread.
 */
#ifndef PINTLE_FUNCTION_H
#define PINTLE_FUNCTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pintle/error.h>
#include <pintle/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pintle_function;

/* Why a function is reset; the differences matter to a model that keeps some state over some of them. */
enum pintle_reset {
	PINTLE_RESET_DEVICE, /* the VMM resets the function (machine reset) */
	PINTLE_RESET_FLR, /* function-level reset by the guest (PCIe 6.6.2) */
	PINTLE_RESET_BUS, /* secondary bus reset */
	PINTLE_RESET_DISCONNECT, /* the client is gone: nothing of it may be left */
	PINTLE_RESET_UNANNOUNCED, /* the device was reset behind the driver's back (BIST) */
};

/* What access returns for an access that ends later, by pintle_function_access_done. */
#define PINTLE_PENDING 1

/* The device model. Called on the loop's thread, never with a lock held; must not block. */
struct pintle_device_ops {
	/*
	 * An access to a BAR, whole as the guest made it: length bytes (1 to 4096) at offset. A read fills data (it holds ones before). 0, a
	 * negative errno (reads then give all-ones), or PINTLE_PENDING.
	 */
	int (*access)(void *device, unsigned bar, uint64_t offset, void *data, uint32_t length, bool write);
	/* The function was reset; it cannot fail. */
	void (*reset)(void *device, enum pintle_reset reset);
	/* Guest memory became reachable (true) or out of bounds (false): bus master, power state, client. May be NULL. */
	void (*gate)(void *device, bool open);
};

enum pintle_bar_type { PINTLE_BAR_NONE, PINTLE_BAR_MEM32, PINTLE_BAR_MEM64, PINTLE_BAR_MEM64_PREFETCH, PINTLE_BAR_IO };

struct pintle_function_options {
	const char *name; /* for logs; copied */
	uint16_t vendor_id, device_id, subsystem_vendor_id, subsystem_id;
	uint8_t revision_id;
	uint32_t class_code; /* 24 bits: class, subclass, programming interface */
	struct {
		enum pintle_bar_type type; /* a 64-bit BAR takes the next number too */
		uint64_t size; /* bytes, a power of two */
	} bars[6];
	uint32_t msix_vectors; /* 0: no MSI-X; its table and pending bits are at the end of msix_bar, which must be larger by a page */
	unsigned msix_bar;
	bool intx; /* INTA */
	bool bus_master_lenient; /* counts bus master as set until the driver first sets it after a reset */
	const struct pintle_device_ops *ops;
	void *device; /* handed to ops; yours */
};

/* 0, -EINVAL (err says what does not fit), -ENOMEM. */
int pintle_function_create(struct pintle_function **out, struct pintle_loop *loop, const struct pintle_function_options *options,
			   struct pintle_error *err);
/* The function is detached and not served. NULL is accepted. */
void pintle_function_destroy(struct pintle_function *function);

/* Ends the access for which ops.access returned PINTLE_PENDING; its data must be filled by now. */
void pintle_function_access_done(struct pintle_function *function, int result);

/* ---- what a device model does ---- */

/*
 * Reads or writes guest memory. 0; -EAGAIN: the gate is closed (try again when ops.gate says it is open); -EFAULT: nothing is mapped there now; -EACCES: not for this
 * direction; -EREMOTE: the client shares no memory for it.
 */
int pintle_dma_read(struct pintle_function *function, uint64_t iova, void *buffer, size_t length);
int pintle_dma_write(struct pintle_function *function, uint64_t iova, const void *buffer, size_t length);

/* Raises an MSI-X vector. Held back while masked, delivered once afterwards; nothing while MSI-X is off. Any thread that the loop waits for. */
void pintle_raise(struct pintle_function *function, uint32_t vector);
/* The level of the INTx line. */
void pintle_set_intx(struct pintle_function *function, bool asserted);

/* ---- what a VMM in the same process does ---- */

/* Attaches this process as the function's client; then accesses can be made. 0 or -EBUSY (somebody is attached). */
int pintle_attach(struct pintle_function *function);
/* Ends it: everything bound, mapped and set is gone when done is called (from the loop, or at once). */
void pintle_detach(struct pintle_function *function, void (*done)(void *context), void *context);

#define PINTLE_REGION_CONFIG 7 /* configuration space; BARs are 0 to 5 */

/*
 * One access by the guest. Does not wait: complete is called when the access is over, perhaps before this returns; data must stay valid until then.
 * result is 0 or a negative errno (a read has all-ones then). -ENOMEM if it could not begin; complete is then not called.
 */
int pintle_access(struct pintle_function *function, unsigned region, uint64_t offset, void *data, uint32_t length, bool write,
		  void (*complete)(void *context, int result), void *context);

/* Makes size bytes of this process's memory at host reachable at iova. 0, -EINVAL, -EEXIST, -ENOMEM. */
int pintle_map(struct pintle_function *function, uint64_t iova, uint64_t size, bool writable, void *host);
/* Takes a range back; done is called when the device cannot touch it any more (from the loop, or at once). -EINVAL, -ENOMEM: nothing has changed. */
int pintle_unmap(struct pintle_function *function, uint64_t iova, uint64_t size, void (*done)(void *context), void *context);

/* Where interrupts go: called from the loop, never from inside an access. vector is the MSI-X vector; for INTx (msix false) level is its state. */
typedef void pintle_interrupt_fn(void *context, bool msix, uint32_t vector, bool level);
void pintle_on_interrupt(struct pintle_function *function, pintle_interrupt_fn *fn, void *context);

/* Resets the function as the machine does; done as above. -ENOMEM: nothing has happened. */
int pintle_reset(struct pintle_function *function, enum pintle_reset reset, void (*done)(void *context), void *context);

/* ---- other processes ---- */

/*
 * Serves the function over vfio-user on a listening UNIX socket, to one client at a time. listen_fd becomes the library's.
 * 0, -EBUSY (served already, or attached), -ENOMEM.
 */
int pintle_serve_vfio_user(struct pintle_function *function, int listen_fd, struct pintle_error *err);
/* Ends the serving and the client's connection; done as above. */
void pintle_stop_serving(struct pintle_function *function, void (*done)(void *context), void *context);

#ifdef __cplusplus
}
#endif
#endif

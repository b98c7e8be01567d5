// SPDX-License-Identifier: BSD-2-Clause
/*
 * The parts of a physical function: the function itself (function.c), the hardware made to agree with it (hardware.c, job.c), and the IOMMU's mappings (mapping.c).
 */
#ifndef HOST_PRIVATE_H
#define HOST_PRIVATE_H

#include "base/helper.h"
#include "base/list.h"
#include "host/function.h"
#include "host/inventory.h"
#include "host/marks.h"
#include "host/methods.h"
#include "host/vfio.h"

/* Command register bits that are the hardware's business; the others are the table's. */
#define HOST_COMMAND (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE)

/* What is bound: one of the three modes, and where each vector goes. */
struct host_irqs {
	int index; /* VFIO_PCI_*_IRQ_INDEX; -1: none */
	uint32_t count;
	int *fds; /* count; -1: not bound. Room for all vectors of the device */
	uint32_t top; /* of what is held: so many messages the kernel has enabled, though all of them may be masked */
};

/* All that a helper thread touches. */
struct host_hands {
	struct host_vfio *vfio;
	const struct host_methods *methods;
	struct host_marks *marks;
};

/* What one job on a helper thread does, in this order, and what it found. The helper touches nothing else. */
struct host_job {
	struct helper_work work;
	struct host_hands hands;
	/* orders */
	bool recovery; /* the kernel resets the link by itself: that comes first */
	bool look; /* compare with what is held before anything else */
	bool off; /* interrupts unbound and command 0 first: before a reset of a handover */
	bool reset; /* with escalation until it verifies */
	bool power; /* that reset is D3hot to D0, if that helps */
	uint16_t held_command, wanted_command;
	struct host_irqs held, wanted; /* wanted.fds are not closed while the life is held */
	bool mask, held_mask; /* INTx */
	bool unmask; /* after a delivery, which has masked it */
	int unmask_fd, held_unmask_fd;
	uint64_t unmasks; /* of the client, when this was ordered */
	/* findings */
	bool lost; /* the hardware was not what was held */
	uint32_t fatal; /* new fatal errors: the device is not to be trusted until it has been reset */
	struct host_errors errors; /* after a look or a reset */
	bool ready; /* it answers, and is what was wanted */
	_Atomic bool quiet; /* its bus master is off since this job began: read by the owner while it runs */
	unsigned tries; /* resets */
	int error;
	char said[200];
};

void host_job_run(struct helper_work *work);
/* Is the hardware as after a reset? On a helper thread, or at set-up; what is not is said. */
bool host_is_clean(const struct host_hands *hands, char *said, size_t size);
/* Resets by one method after another until it verifies, power: first by D3hot to D0. The number of tries; 0: none has helped. */
unsigned host_reset(const struct host_hands *hands, bool power, char *said, size_t size);
int host_write_command(const struct host_vfio *vfio, uint16_t command);

#define HOST_CLIENT_UNKNOWN (-2) /* as a pidfd: there is one, of which nothing is known */

struct host_mapping;
/* broken: see host_mapping_is_broken; from the owner. */
int host_mapping_create(struct host_mapping **out, struct host_vfio *vfio, struct dma_space *space, struct loop *owner, struct log_source *log,
			void (*broken)(void *context), void *context);
void host_mapping_destroy(struct host_mapping *mapping); /* nothing under way. NULL is accepted */
bool host_mapping_busy(const struct host_mapping *mapping);
/* While it is stopped, what is to be applied waits: the device has to be off before its memory goes. */
void host_mapping_pause(struct host_mapping *mapping, bool paused);
/* The IOMMU may hold what it should not: the device must not be used. */
bool host_mapping_is_broken(const struct host_mapping *mapping);
void host_mapping_count(const struct host_mapping *mapping, uint64_t *count, uint64_t *bytes);

struct host_function {
	struct loop *owner;
	struct log_source *log;
	struct pci_function *pci;
	struct host_device device;
	const char *sysfs, *dev, *records;
	struct host_vfio vfio;
	struct host_methods methods;
	struct host_marks marks; /* the helper's while a job runs */
	struct host_mapping *mapping;
	struct life_listener listener;
	uint64_t check_ns;
	struct loop_timer check;
	/* capabilities that are passed on: where they are for the guest, and in the hardware */
	struct {
		uint32_t guest, hardware, length;
	} passed[16];
	unsigned passed_count;

	enum host_state state;
	bool clean; /* the last handover verified */
	bool stale; /* wanted may differ from held */
	bool holding; /* the life, until they agree */
	bool running; /* job */
	bool posted; /* message */
	bool wants_reset, wants_look;
	bool wants_power; /* the reset is D3hot to D0 */
	bool wants_recovery; /* the kernel's own comes before it */
	bool after_error; /* of the bus, and nobody has looked since */
	bool attended; /* a client is there, as far as the checks know */
	bool reset_holds; /* the life, until that reset has ended (a handover) */
	bool answer_holds; /* the life, until that reset has ended or patience is at its end */
	struct loop_timer patience;
	struct loop_message message;
	struct host_job job;
	uint16_t held_command;
	struct host_irqs held;
	uint64_t unmasks; /* of INTx, done */
	int held_unmask_fd;
	bool held_mask;
	struct host_event {
		struct loop_fd watch;
		int fd;
		uint64_t count;
	} events[2]; /* the kernel's: ERR, REQ */

	enum host_bars bars;
	/* device-fd: the process that holds the device's descriptor, as long as it may live; -1: none */
	int client_pidfd;
	int client_pid;
	struct loop_fd client_watch;
	bool retired;

	struct {
		void (*done)(void *context, int found);
		void *context;
	} asked; /* a check by somebody */
	void (*stopped)(void *context);
	void *stopped_context;
	bool stopping;

	uint64_t checks, found, healed, resets, escalations, jobs, fatals;
	struct host_errors errors;
	char last[200];
};

/* shape.c: makes host->pci from the open device. */
int host_shape(struct host_function *host, const struct host_function_options *options, const struct pci_device_ops *ops, struct pintle_error *err);

/* events.c */
void host_events_note(struct host_function *host, const struct host_errors *errors);
int host_events_create(struct host_function *host);
void host_events_destroy(struct host_function *host);

/* client.c: where the client gets the device's descriptor, its process has to be dead before the device is anybody else's (law 4). */
void host_client_arrived(struct host_function *host, int socket);
/* true: nobody but us has the device. false: not yet; host_hardware_again() follows. */
bool host_client_is_dead(struct host_function *host);
void host_client_forget(struct host_function *host);

/* hardware.c */
void host_hardware_again(struct host_function *host);
void host_hardware_init(struct host_function *host);
void host_hardware_stale(struct host_function *host);
void host_hardware_reset(struct host_function *host, enum life_event event);
void host_hardware_watch(struct host_function *host, bool on);

#endif

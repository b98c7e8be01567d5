// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of a PCI function, shared by the files of this directory (and their unit tests).
 */
#ifndef PCI_INTERNAL_H
#define PCI_INTERNAL_H

#include <stdatomic.h>

#include "pci/config.h"
#include "pci/function.h"

/* owner: everything but intx */
struct pci_function {
	struct loop *owner;
	struct log_source log;
	char name[40];
	struct life *life;
	struct life_listener listener;
	struct irq_set *irq;
	struct dma_space *dma;
	const struct pci_device_ops *ops;
	void *device;

	struct pci_config config;
	struct pci_bar_options bars[PCI_BARS];
	struct irq_options irq_options;
	unsigned msix_bar;
	uint32_t msix_table_offset, msix_pba_offset;
	uint32_t power_at, pcie_at, msix_at, msi_at; /* 0: there is none */
	enum pci_bus_master_policy bus_master;
	bool master_seen; /* the driver has set bus master since the last reset */
	bool conditions_stale; /* a register was written that the conditions depend on */
	bool soft_reset; /* D3hot to D0 resets */
	bool bist_started, flr_started, power_started; /* by the access that is being walked */
	_Atomic bool intx; /* any thread: the Interrupt Status bit */

	/* the queue of requests: one at a time, the next when it has settled */
	struct list requests;
	struct pci_request *current;
	struct life_wait wait;
	bool pumping;
	bool access_running, access_ended; /* bar_access is further up the stack; it has been ended from in there */
	int access_result;
	void (*after)(struct pci_function *function); /* the next step of `current`, when what it began has settled */

	struct pci_saving *saving; /* function_state.c; NULL: not being saved */
	const struct pci_road_state *road; /* NULL: none */
	void *road_context;

	/* handover */
	struct dma_commit commit;
	bool escalated;
	enum life_event reset_event;
};

/* ---- queue.c ---- */
/* Ends a step of the current request: goes on with `after`, or the answer, when all has settled. */
void pci_queue_settle(struct pci_function *function);

/* ---- access.c ---- */
int pci_access(struct pci_function *function, struct pci_request *request);

/* ---- reset.c ---- */
/* A reset or a change of clients, as the current request or as a part of it. The rest follows by `after`. */
int pci_reset(struct pci_function *function, enum life_event event);

/* ---- command.c: command and status, and what follows from all registers together ---- */
void pci_command_init(struct pci_function *function);
bool pci_bus_master(const struct pci_function *function);
/* Brings the gate's conditions and the interrupts' in line with the registers. */
void pci_conditions_update(struct pci_function *function);

/* Does the saved state have every register that can change? For tests. */
bool pci_state_covers(const struct pci_function *function);

/* ---- one file each ---- */
void pci_header_init(struct pci_function *function, const struct pci_function_options *options);
int pci_bars_check(const struct pci_function_options *options, struct pintle_error *err);
void pci_bars_init(struct pci_function *function);
/* Would an access to this BAR reach the device: decoding is on, and power is? */
bool pci_bar_decodes(const struct pci_function *function, unsigned bar);
void pci_bist_init(struct pci_function *function);
int pci_power_init(struct pci_function *function, struct pintle_error *err);
bool pci_power_is_d0(const struct pci_function *function);
int pci_pcie_init(struct pci_function *function, struct pintle_error *err);
int pci_msix_init(struct pci_function *function, struct pintle_error *err);
int pci_msi_init(struct pci_function *function, struct pintle_error *err);
uint32_t pci_msix_conditions(const struct pci_function *function);
uint32_t pci_msi_conditions(const struct pci_function *function);

#endif

// SPDX-License-Identifier: BSD-2-Clause
/*
 * The rig of virtio_rig.h as a PCI function: accesses as a road makes them, the driver's part register by register, and triggers for its interrupts.
 */
#ifndef TESTS_UNIT_VIRTIO_PCI_RIG_H
#define TESTS_UNIT_VIRTIO_PCI_RIG_H

#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <sys/eventfd.h>

#include "virtio_rig.h"
#include "virtio/transport/pci.h"

#define COMMAND_ON (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

struct place {
	uint32_t capability, bar, offset, length;
};

struct pci_rig {
	struct rig rig;
	struct pci_function *function;
	struct place places[VIRTIO_PCI_CAP_PCI_CFG + 1];
	uint32_t msix, notify_multiplier;
	int vectors[RIG_QUEUES + 1], intx;
};

/* ---- requests as a road makes them ---- */

struct answer {
	struct pci_request request;
	bool complete;
	int result;
};

static inline void on_complete(struct pci_request *request, int result)
{
	struct answer *answer = container_of(request, struct answer, request);
	answer->complete = true;
	answer->result = result;
}

static inline int access_function(struct pci_rig *p, unsigned region, uint64_t offset, void *data, uint32_t length, bool write)
{
	struct answer answer = { .request = { .kind = PCI_REQUEST_ACCESS, .complete = on_complete,
					      .access = { .offset = offset, .data = data, .length = length, .region = (uint8_t)region, .write = write } } };
	pci_function_submit(p->function, &answer.request);
	rig_until(&p->rig, answer.complete);
	return answer.result;
}

static inline void event(struct pci_rig *p, enum life_event what)
{
	struct answer answer = { .request = { .kind = PCI_REQUEST_RESET, .complete = on_complete, .reset = { .event = what } } };
	pci_function_submit(p->function, &answer.request);
	rig_until(&p->rig, answer.complete);
	assert_int_equal(answer.result, 0);
}

static inline uint64_t get(struct pci_rig *p, unsigned region, uint64_t offset, uint32_t length)
{
	uint8_t data[8] = { 0 };
	assert_int_equal(access_function(p, region, offset, data, length, false), 0);
	return load_le64(data);
}

static inline void set(struct pci_rig *p, unsigned region, uint64_t offset, uint32_t length, uint64_t value)
{
	uint8_t data[8];
	store_le64(data, value);
	assert_int_equal(access_function(p, region, offset, data, length, true), 0);
}

static inline uint32_t config_get(struct pci_rig *p, uint32_t offset, uint32_t length)
{
	return (uint32_t)get(p, PCI_REGION_CONFIG, offset, length);
}

static inline void config_set(struct pci_rig *p, uint32_t offset, uint32_t length, uint32_t value)
{
	set(p, PCI_REGION_CONFIG, offset, length, value);
}

static inline uint64_t common_get(struct pci_rig *p, uint32_t offset, uint32_t length)
{
	const struct place *place = &p->places[VIRTIO_PCI_CAP_COMMON_CFG];
	return get(p, place->bar, place->offset + offset, length);
}

static inline void common_set(struct pci_rig *p, uint32_t offset, uint32_t length, uint64_t value)
{
	const struct place *place = &p->places[VIRTIO_PCI_CAP_COMMON_CFG];
	set(p, place->bar, place->offset + offset, length, value);
}

static inline uint8_t isr(struct pci_rig *p)
{
	const struct place *place = &p->places[VIRTIO_PCI_CAP_ISR_CFG];
	return (uint8_t)get(p, place->bar, place->offset, 1);
}

static inline uint8_t status(struct pci_rig *p)
{
	return (uint8_t)common_get(p, VIRTIO_PCI_COMMON_STATUS, 1);
}

static inline bool came(int fd)
{
	uint64_t count;
	return read(fd, &count, sizeof count) == (ssize_t)sizeof count;
}

/* ---- beginning and end ---- */

static inline void find_capabilities(struct pci_rig *p)
{
	unsigned count = 0;
	memset(p->places, 0, sizeof p->places);
	for (uint32_t at = config_get(p, PCI_CAPABILITY_LIST, 1); at; at = config_get(p, at + 1, 1)) {
		assert_true(++count < 48);
		uint32_t id = config_get(p, at, 1);
		if (id == PCI_CAP_ID_MSIX)
			p->msix = at;
		if (id != PCI_CAP_ID_VNDR)
			continue;
		uint32_t type = config_get(p, at + VIRTIO_PCI_CAP_CFG_TYPE, 1);
		assert_in_range(type, 1, VIRTIO_PCI_CAP_PCI_CFG);
		assert_int_equal(p->places[type].capability, 0);
		p->places[type] = (struct place){ at, config_get(p, at + VIRTIO_PCI_CAP_BAR, 1), config_get(p, at + VIRTIO_PCI_CAP_OFFSET, 4),
						  config_get(p, at + VIRTIO_PCI_CAP_LENGTH, 4) };
		if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
			p->notify_multiplier = config_get(p, at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
	}
}

static inline void pci_begin(struct pci_rig *p, bool alone, bool msix)
{
	struct virtio_pci_options options = { .name = "rig", .bus_master = PCI_BUS_MASTER_STRICT, .msix = msix };
	memset(p, 0, sizeof *p);
	struct rig *rig = &p->rig;
	rig->alone = alone;
	rig_begin(rig);
	/* In place of the rig's own life and space. */
	virtio_device_detach(rig->device);
	rig_idle(rig);
	dma_space_destroy(rig->space);
	life_destroy(rig->life);
	assert_int_equal(virtio_pci_create(&p->function, rig->device, &options, rig->owner, NULL), 0);
	rig->life = pci_function_life(p->function);
	rig->space = pci_function_dma(p->function);
	event(p, LIFE_EVENT_CONNECT);
	rig_map(rig, RIG_BASE, RIG_SIZE, false);
	find_capabilities(p);
}

static inline void pci_end(struct pci_rig *p)
{
	struct rig *rig = &p->rig;
	event(p, LIFE_EVENT_DISCONNECT);
	rig_end(rig, 1000);
	rig_idle(rig);
	virtio_pci_destroy(rig->device);
	virtio_device_destroy(rig->device);
	rig_until(rig, rig->destroyed);
	loop_thread_stop(rig->thread);
	rig_idle(rig);
	loop_destroy(rig->owner);
	munmap(rig->memory, RIG_SIZE);
	munmap(rig->shown, RIG_SIZE);
	for (unsigned i = 0; i <= RIG_QUEUES; i++)
		if (p->vectors[i] > 0)
			close(p->vectors[i]);
	if (p->intx > 0)
		close(p->intx);
}

static inline int bind_trigger(struct pci_rig *p, enum irq_kind kind, uint32_t vector)
{
	int mine = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), theirs = fcntl(mine, F_DUPFD_CLOEXEC, 0);
	assert_true(mine >= 0 && theirs >= 0);
	assert_int_equal(irq_bind(pci_function_irq(p->function), kind, vector, 1, &theirs), 0);
	return mine;
}

/* The driver's part of it, register by register. */
static inline void pci_start_driver(struct pci_rig *p, bool msix)
{
	config_set(p, PCI_COMMAND, 2, COMMAND_ON);
	if (msix)
		config_set(p, p->msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	common_set(p, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	assert_int_equal(status(p), 0);
	common_set(p, VIRTIO_PCI_COMMON_STATUS, 1, RIG_HELLO);
	common_set(p, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	common_set(p, VIRTIO_PCI_COMMON_GF, 4, 1 | 1u << (VIRTIO_F_RING_RESET - 32));
	common_set(p, VIRTIO_PCI_COMMON_STATUS, 1, RIG_READY);
	assert_int_equal(status(p), RIG_READY);
	common_set(p, VIRTIO_PCI_COMMON_MSIX, 2, 0);
	assert_int_equal(common_get(p, VIRTIO_PCI_COMMON_MSIX, 2), p->msix ? 0 : VIRTIO_MSI_NO_VECTOR);
	for (unsigned q = 0; q < RIG_QUEUES; q++) {
		memset(rig_at(&p->rig, RIG_RING(q)), 0, 3 * RIG_PAGE);
		memset(p->rig.busy[q], 0, sizeof p->rig.busy[q]);
		p->rig.avail[q] = p->rig.used[q] = 0;
		common_set(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
		assert_int_equal(common_get(p, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
		common_set(p, VIRTIO_PCI_COMMON_Q_SIZE, 2, RIG_ENTRIES);
		common_set(p, VIRTIO_PCI_COMMON_Q_MSIX, 2, q + 1);
		assert_int_equal(common_get(p, VIRTIO_PCI_COMMON_Q_MSIX, 2), p->msix ? q + 1 : VIRTIO_MSI_NO_VECTOR);
		common_set(p, VIRTIO_PCI_COMMON_Q_DESCLO, 8, RIG_RING(q));
		common_set(p, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, RIG_AVAIL(q));
		common_set(p, VIRTIO_PCI_COMMON_Q_AVAILHI, 4, 0);
		common_set(p, VIRTIO_PCI_COMMON_Q_USEDLO, 4, RIG_USED(q));
		common_set(p, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	}
	common_set(p, VIRTIO_PCI_COMMON_STATUS, 1, RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(rig_conditions(&p->rig), 0);
}

static inline void bind_all(struct pci_rig *p)
{
	for (uint32_t i = 0; i <= RIG_QUEUES; i++)
		p->vectors[i] = bind_trigger(p, IRQ_MSIX, i);
}

static inline void notify(struct pci_rig *p, unsigned q)
{
	const struct place *place = &p->places[VIRTIO_PCI_CAP_NOTIFY_CFG];
	common_set(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	set(p, place->bar, place->offset + common_get(p, VIRTIO_PCI_COMMON_Q_NOFF, 2) * p->notify_multiplier, 2, q);
}

static inline void pci_round(struct pci_rig *p, unsigned q)
{
	int mode = atomic_exchange(&p->rig.mode, MODE_AT_ONCE);
	rig_add(&p->rig, q);
	notify(p, q);
	rig_wait_used(&p->rig, q);
	rig_sync(&p->rig);
	atomic_store(&p->rig.mode, mode);
}

#endif

// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio PCI transport, driver's side.
 */
#include "drive/virtio_pci.h"

#include <errno.h>
#include <time.h>

#include "base/error.h"

#define VIRTIO_VENDOR 0x1af4
#define FIRST_MODERN 0x1040
#define FIRST_TRANSITIONAL 0x1000
#define RESET_PATIENCE_MS 5000
/* A queue's reset lasts as long as the disk below it needs for what is under way (queue_reset, 2.6.1 of the specification sets no limit). */
#define QUEUE_RESET_PATIENCE_MS 60000
#define GENERATION_TRIES 1000

/* ---- capabilities ---- */

static int read_structure(struct drive_virtio *v, uint16_t cap, struct pintle_error *err)
{
	struct virtio_pci_cap64 c = { 0 };
	struct drive_pci *p = v->pci;

	int rc = drive_client_region_read(p->client, VFIO_PCI_CONFIG_REGION_INDEX, cap, &c.cap, sizeof c.cap, err);
	if (rc)
		return rc;
	if (c.cap.cap_len < sizeof c.cap)
		return 0;
	struct drive_structure s = {
		.present = true,
		.bar = c.cap.bar,
		.id = c.cap.id,
		.cap = cap,
		.offset = le32toh(c.cap.offset),
		.length = le32toh(c.cap.length),
	};
	if (c.cap.cfg_type == VIRTIO_PCI_CAP_SHARED_MEMORY_CFG && c.cap.cap_len >= sizeof c) {
		rc = drive_client_region_read(p->client, VFIO_PCI_CONFIG_REGION_INDEX, cap, &c, sizeof c, err);
		if (rc || v->shared_count == ARRAY_SIZE(v->shared))
			return rc;
		s.offset |= (uint64_t)le32toh(c.offset_hi) << 32;
		s.length |= (uint64_t)le32toh(c.length_hi) << 32;
		v->shared[v->shared_count++] = s;
		return 0;
	}
	struct drive_structure *places[] = {
		[VIRTIO_PCI_CAP_COMMON_CFG] = &v->common, [VIRTIO_PCI_CAP_NOTIFY_CFG] = &v->notify,
		[VIRTIO_PCI_CAP_ISR_CFG] = &v->isr,	  [VIRTIO_PCI_CAP_DEVICE_CFG] = &v->device,
		[VIRTIO_PCI_CAP_PCI_CFG] = &v->access,
	};
	/* 4.1.4.1: the first of a type that can be used counts; unknown types and reserved BARs are passed over. */
	if (c.cap.cfg_type >= ARRAY_SIZE(places) || !places[c.cap.cfg_type] || places[c.cap.cfg_type]->present)
		return 0;
	if (c.cap.cfg_type != VIRTIO_PCI_CAP_PCI_CFG &&
	    (s.bar >= DRIVE_BARS || !range_within(s.offset, s.length, p->bars[s.bar].size)))
		return 0;
	*places[c.cap.cfg_type] = s;
	if (c.cap.cfg_type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		rc = drive_pci_config_read(p, cap + VIRTIO_PCI_NOTIFY_CAP_MULT, 4, &v->notify_multiplier, err);
	return rc;
}

static int read_features(struct drive_virtio *v, struct pintle_error *err)
{
	uint32_t half;
	int rc = 0;

	v->offered = 0;
	for (uint32_t i = 0; !rc && i < 2; i++) {
		rc = drive_virtio_common_write(v, VIRTIO_PCI_COMMON_DFSELECT, 4, i, err);
		if (!rc)
			rc = drive_virtio_common_read(v, VIRTIO_PCI_COMMON_DF, 4, &half, err);
		if (!rc)
			v->offered |= (uint64_t)half << (32 * i);
	}
	return rc;
}

int drive_virtio_open(struct drive_virtio *v, struct drive_pci *pci, struct pintle_error *err)
{
	uint32_t queues;

	*v = (struct drive_virtio){ .pci = pci };
	for (unsigned i = 0; i < DRIVE_VIRTIO_QUEUES; i++)
		v->kicks[i].fd = -1;
	if (pci->vendor != VIRTIO_VENDOR || pci->device < FIRST_TRANSITIONAL || pci->device > 0x107f)
		return error_set(err, -ENODEV, "%04x:%04x is no virtio function", pci->vendor, pci->device);
	v->transitional = pci->device < FIRST_MODERN;
	v->device_id = v->transitional ? pci->subsystem : (unsigned)pci->device - FIRST_MODERN;
	for (uint16_t cap = drive_pci_find_cap(pci, PCI_CAP_ID_VNDR, 0); cap;
	     cap = drive_pci_find_cap(pci, PCI_CAP_ID_VNDR, cap)) {
		int rc = read_structure(v, cap, err);
		if (rc)
			return rc;
	}
	if (!v->common.present || !v->notify.present || !v->isr.present)
		return error_set(err, -EPROTO, "the virtio function lacks the %s structure",
				 !v->common.present ? "common" : !v->notify.present ? "notify" : "ISR");
	int rc = read_features(v, err);
	if (!rc)
		rc = drive_virtio_common_read(v, VIRTIO_PCI_COMMON_NUMQ, 2, &queues, err);
	v->queue_count = rc ? 0 : min_of(queues, (uint32_t)DRIVE_VIRTIO_QUEUES);
	return rc;
}

void drive_virtio_close(struct drive_virtio *v)
{
	drive_io_fds_close(&v->io);
}

/* ---- fields ---- */

int drive_virtio_common_read(struct drive_virtio *v, uint32_t offset, uint32_t size, uint32_t *value,
			     struct pintle_error *err)
{
	uint8_t bytes[4] = { 0 };
	int rc = drive_bar_read(v->pci, v->common.bar, v->common.offset + offset, bytes, min_of(size, 4u), err);
	*value = load_le32(bytes);
	return rc;
}

int drive_virtio_common_write(struct drive_virtio *v, uint32_t offset, uint32_t size, uint32_t value,
			      struct pintle_error *err)
{
	uint8_t bytes[4];
	store_le32(bytes, value);
	return drive_bar_write(v->pci, v->common.bar, v->common.offset + offset, bytes, min_of(size, 4u), err);
}

int drive_virtio_status(struct drive_virtio *v, uint8_t *status, struct pintle_error *err)
{
	uint32_t value;
	int rc = drive_virtio_common_read(v, VIRTIO_PCI_COMMON_STATUS, 1, &value, err);
	*status = (uint8_t)value;
	return rc;
}

int drive_virtio_set_status(struct drive_virtio *v, uint8_t status, struct pintle_error *err)
{
	return drive_virtio_common_write(v, VIRTIO_PCI_COMMON_STATUS, 1, status, err);
}

static void sleep_1ms(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

/* A field that has to become 0. */
static int await_zero(struct drive_virtio *v, uint32_t offset, uint32_t size, unsigned patience_ms, const char *what,
		      struct pintle_error *err)
{
	uint32_t value;

	for (unsigned ms = 0;; ms++) {
		int rc = drive_virtio_common_read(v, offset, size, &value, err);
		if (rc || !value)
			return rc;
		if (ms == patience_ms)
			return error_set(err, -ETIMEDOUT, "%s still reads %u after %u ms", what, value, ms);
		if (drive_client_serve(v->pci->client, 0, NULL) == 0)
			sleep_1ms();
	}
}

int drive_virtio_reset(struct drive_virtio *v, struct pintle_error *err)
{
	int rc = drive_virtio_set_status(v, 0, err);
	if (!rc)
		rc = await_zero(v, VIRTIO_PCI_COMMON_STATUS, 1, RESET_PATIENCE_MS, "device_status", err);
	v->features = 0;
	return rc;
}

int drive_virtio_negotiate(struct drive_virtio *v, uint64_t wanted, struct pintle_error *err)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE;

	int rc = drive_virtio_reset(v, err);
	if (!rc)
		rc = drive_virtio_set_status(v, status, err);
	status |= VIRTIO_CONFIG_S_DRIVER;
	if (!rc)
		rc = drive_virtio_set_status(v, status, err);
	if (!rc)
		rc = read_features(v, err);
	uint64_t features = v->offered & wanted;
	for (uint32_t i = 0; !rc && i < 2; i++) {
		rc = drive_virtio_common_write(v, VIRTIO_PCI_COMMON_GFSELECT, 4, i, err);
		if (!rc)
			rc = drive_virtio_common_write(v, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(features >> (32 * i)),
						       err);
	}
	status |= VIRTIO_CONFIG_S_FEATURES_OK;
	if (!rc)
		rc = drive_virtio_set_status(v, status, err);
	if (!rc)
		rc = drive_virtio_status(v, &status, err);
	if (rc)
		return rc;
	if (!(status & VIRTIO_CONFIG_S_FEATURES_OK))
		return error_set(err, -EPROTO, "the device refuses the features 0x%llx", (unsigned long long)features);
	v->features = features;
	return 0;
}

int drive_virtio_driver_ok(struct drive_virtio *v, struct pintle_error *err)
{
	uint8_t status;
	int rc = drive_virtio_status(v, &status, err);
	return rc ? rc : drive_virtio_set_status(v, status | VIRTIO_CONFIG_S_DRIVER_OK, err);
}

/* ---- queues ---- */

static int select_queue(struct drive_virtio *v, unsigned index, struct pintle_error *err)
{
	if (index >= v->queue_count)
		return error_set(err, -EINVAL, "queue %u of %u", index, v->queue_count);
	return drive_virtio_common_write(v, VIRTIO_PCI_COMMON_Q_SELECT, 2, index, err);
}

int drive_virtio_queue_max(struct drive_virtio *v, unsigned index, uint16_t *size, struct pintle_error *err)
{
	uint32_t value = 0;
	int rc = select_queue(v, index, err);
	if (!rc)
		rc = drive_virtio_common_read(v, VIRTIO_PCI_COMMON_Q_SIZE, 2, &value, err);
	*size = (uint16_t)value;
	return rc;
}

static int write_address(struct drive_virtio *v, uint32_t offset, uint64_t address, struct pintle_error *err)
{
	int rc = drive_virtio_common_write(v, offset, 4, (uint32_t)address, err);
	return rc ? rc : drive_virtio_common_write(v, offset + 4, 4, (uint32_t)(address >> 32), err);
}

/* A vector that the device cannot take reads back as NO_VECTOR (4.1.5.1.2). */
static int write_vector(struct drive_virtio *v, uint32_t offset, uint16_t vector, struct pintle_error *err)
{
	uint32_t value;
	int rc = drive_virtio_common_write(v, offset, 2, vector, err);
	if (!rc)
		rc = drive_virtio_common_read(v, offset, 2, &value, err);
	if (!rc && value != vector)
		rc = error_set(err, -EBUSY, "the device does not take vector %u", vector);
	return rc;
}

int drive_virtio_config_vector(struct drive_virtio *v, uint16_t vector, struct pintle_error *err)
{
	return write_vector(v, VIRTIO_PCI_COMMON_MSIX, vector, err);
}

static int find_io_fd(struct drive_virtio *v, uint64_t offset, unsigned index)
{
	if (!v->use_io_fds || drive_virtio_has(v, DRIVE_F_NOTIFICATION_DATA))
		return -1;
	if (!v->io.fd_count && drive_client_get_io_fds(v->pci->client, v->notify.bar, &v->io, NULL))
		return -1;
	for (unsigned i = 0; i < v->io.count; i++) {
		const struct vfio_user_sub_region_ioeventfd *e = &v->io.entries[i];
		bool matches = !(e->flags & VFIO_USER_IOEVENTFD_DATAMATCH) || e->datamatch == index;
		if (e->type == VFIO_USER_IO_FD_TYPE_IOEVENTFD && e->offset == offset && matches)
			return v->io.fds[e->fd_index];
	}
	return -1;
}

static int make_kick(struct drive_virtio *v, unsigned index, struct pintle_error *err)
{
	uint32_t off;
	uint16_t value = htole16((uint16_t)index);

	int rc = drive_virtio_common_read(v, VIRTIO_PCI_COMMON_Q_NOFF, 2, &off, err);
	if (rc)
		return rc;
	uint64_t at = (uint64_t)off * v->notify_multiplier;
	if (!range_within(at, sizeof value, v->notify.length))
		return error_set(err, -EPROTO, "the doorbell of queue %u lies outside the notify structure", index);
	at += v->notify.offset;
	v->notify_offsets[index] = at;
	int fd = find_io_fd(v, at, index);
	if (fd >= 0)
		drive_kick_eventfd(&v->kicks[index], fd);
	else
		drive_kick_message(&v->kicks[index], v->pci->client, v->notify.bar, at, &value, sizeof value);
	return 0;
}

int drive_virtio_queue_setup(struct drive_virtio *v, unsigned index, const struct drive_queue *q, uint16_t vector,
			     struct pintle_error *err)
{
	int rc = select_queue(v, index, err);
	if (!rc)
		rc = drive_virtio_common_write(v, VIRTIO_PCI_COMMON_Q_SIZE, 2, q->o.size, err);
	if (!rc)
		rc = write_vector(v, VIRTIO_PCI_COMMON_Q_MSIX, vector, err);
	if (!rc)
		rc = write_address(v, VIRTIO_PCI_COMMON_Q_DESCLO, q->desc_address, err);
	if (!rc)
		rc = write_address(v, VIRTIO_PCI_COMMON_Q_AVAILLO, q->driver_address, err);
	if (!rc)
		rc = write_address(v, VIRTIO_PCI_COMMON_Q_USEDLO, q->device_address, err);
	if (!rc)
		rc = make_kick(v, index, err);
	if (!rc)
		rc = drive_virtio_common_write(v, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1, err);
	if (rc)
		error_prefix(err, "queue %u", index);
	return rc;
}

int drive_virtio_queue_reset(struct drive_virtio *v, unsigned index, struct pintle_error *err)
{
	if (!drive_virtio_has(v, VIRTIO_F_RING_RESET))
		return error_set(err, -EOPNOTSUPP, "VIRTIO_F_RING_RESET was not negotiated");
	int rc = select_queue(v, index, err);
	if (!rc)
		rc = drive_virtio_common_write(v, VIRTIO_PCI_COMMON_Q_RESET, 2, 1, err);
	if (!rc)
		rc = await_zero(v, VIRTIO_PCI_COMMON_Q_RESET, 2, QUEUE_RESET_PATIENCE_MS, "queue_reset", err);
	if (!rc)
		rc = await_zero(v, VIRTIO_PCI_COMMON_Q_ENABLE, 2, RESET_PATIENCE_MS, "queue_enable", err);
	return rc;
}

int drive_virtio_notify(struct drive_virtio *v, unsigned index, struct pintle_error *err)
{
	uint16_t value = htole16((uint16_t)index);

	if (index >= DRIVE_VIRTIO_QUEUES || v->kicks[index].fd < 0)
		return error_set(err, -EINVAL, "queue %u is not set up", index);
	if (v->sync_notify && v->kicks[index].is_socket)
		return drive_bar_write(v->pci, v->notify.bar, v->notify_offsets[index], &value, sizeof value, err);
	int rc = drive_kick_send(&v->kicks[index]);
	return rc ? error_errno(err, rc, "cannot kick queue %u", index) : 0;
}

/* ---- device configuration ---- */

/* Fields are read as the driver would: at most 4 bytes each, naturally aligned. */
static int config_pieces(struct drive_virtio *v, uint32_t offset, uint8_t *data, uint32_t length, bool is_write,
			 struct pintle_error *err)
{
	for (uint32_t done = 0; done < length;) {
		uint32_t at = offset + done, left = length - done;
		uint32_t step = left >= 4 && is_aligned(at, 4) ? 4 : left >= 2 && is_aligned(at, 2) ? 2 : 1;
		uint64_t where = v->device.offset + at;
		int rc = is_write ? drive_bar_write(v->pci, v->device.bar, where, data + done, step, err)
				  : drive_bar_read(v->pci, v->device.bar, where, data + done, step, err);
		if (rc)
			return rc;
		done += step;
	}
	return 0;
}

static int check_config(const struct drive_virtio *v, uint32_t offset, uint32_t length, struct pintle_error *err)
{
	if (v->device.present && range_within(offset, length, v->device.length))
		return 0;
	return error_set(err, -ERANGE, "the device configuration has no %u bytes at %u", length, offset);
}

int drive_virtio_config_read(struct drive_virtio *v, uint32_t offset, void *data, uint32_t length,
			     struct pintle_error *err)
{
	uint32_t before, after;

	int rc = check_config(v, offset, length, err);
	for (unsigned i = 0; !rc && i < GENERATION_TRIES; i++) {
		rc = drive_virtio_common_read(v, VIRTIO_PCI_COMMON_CFGGENERATION, 1, &before, err);
		if (!rc)
			rc = config_pieces(v, offset, data, length, false, err);
		if (!rc)
			rc = drive_virtio_common_read(v, VIRTIO_PCI_COMMON_CFGGENERATION, 1, &after, err);
		if (rc || before == after)
			return rc;
	}
	return rc ? rc : error_set(err, -EBUSY, "the device configuration does not stop changing");
}

int drive_virtio_config_write(struct drive_virtio *v, uint32_t offset, const void *data, uint32_t length,
			      struct pintle_error *err)
{
	int rc = check_config(v, offset, length, err);
	return rc ? rc : config_pieces(v, offset, (uint8_t *)(uintptr_t)data, length, true, err);
}

int drive_virtio_isr(struct drive_virtio *v, uint8_t *isr, struct pintle_error *err)
{
	return drive_bar_read(v->pci, v->isr.bar, v->isr.offset, isr, 1, err);
}

/* ---- access through configuration space ---- */

static int aim(struct drive_virtio *v, uint8_t bar, uint32_t offset, uint32_t size, struct pintle_error *err)
{
	uint32_t cap = v->access.cap;

	if (!v->access.present)
		return error_set(err, -EOPNOTSUPP, "the function has no configuration access capability");
	int rc = drive_pci_config_write(v->pci, cap + VIRTIO_PCI_CAP_BAR, 1, bar, err);
	if (!rc)
		rc = drive_pci_config_write(v->pci, cap + VIRTIO_PCI_CAP_OFFSET, 4, offset, err);
	if (!rc)
		rc = drive_pci_config_write(v->pci, cap + VIRTIO_PCI_CAP_LENGTH, 4, size, err);
	return rc;
}

int drive_virtio_access_read(struct drive_virtio *v, uint8_t bar, uint32_t offset, uint32_t size, uint32_t *value,
			     struct pintle_error *err)
{
	int rc = aim(v, bar, offset, size, err);
	*value = 0;
	return rc ? rc
		  : drive_pci_config_read(v->pci, v->access.cap + (uint32_t)sizeof(struct virtio_pci_cap), size, value,
					  err);
}

int drive_virtio_access_write(struct drive_virtio *v, uint8_t bar, uint32_t offset, uint32_t size, uint32_t value,
			      struct pintle_error *err)
{
	int rc = aim(v, bar, offset, size, err);
	return rc ? rc
		  : drive_pci_config_write(v->pci, v->access.cap + (uint32_t)sizeof(struct virtio_pci_cap), size,
					   value, err);
}

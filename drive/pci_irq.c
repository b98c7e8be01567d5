// SPDX-License-Identifier: BSD-2-Clause
/*
 * Interrupts of a function, power states and resets, in the steps in which QEMU and guests take them.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "drive/pci.h"

#define BIND (VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER)
#define UNBIND_ALL (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER)
#define MSIX_ADDRESS UINT64_C(0xfee00000)

static const uint32_t irq_index[] = {
	[DRIVE_IRQ_INTX] = VFIO_PCI_INTX_IRQ_INDEX,
	[DRIVE_IRQ_MSI] = VFIO_PCI_MSI_IRQ_INDEX,
	[DRIVE_IRQ_MSIX] = VFIO_PCI_MSIX_IRQ_INDEX,
};

int drive_pci_set_command(struct drive_pci *p, uint16_t clear, uint16_t set, struct pintle_error *err)
{
	return drive_pci_config_update(p, PCI_COMMAND, 2, clear, set, err);
}

int drive_pci_bus_master(struct drive_pci *p, bool on, struct pintle_error *err)
{
	/* On: the client answers before the server can know; off: it stops when the server knows. */
	if (on)
		drive_client_set_bus_master(p->client, true);
	int rc = drive_pci_set_command(p, on ? 0 : PCI_COMMAND_MASTER, on ? PCI_COMMAND_MASTER : 0, err);
	if (!rc && !on)
		drive_client_set_bus_master(p->client, false);
	return rc;
}

/* ---- enabling and disabling ---- */

static void close_vectors(struct drive_pci *p)
{
	while (p->vector_count)
		close(p->vectors[--p->vector_count]);
}

static int make_vectors(struct drive_pci *p, unsigned count, struct pintle_error *err)
{
	for (; p->vector_count < count; p->vector_count++) {
		p->vectors[p->vector_count] = eventfd(0, EFD_CLOEXEC);
		if (p->vectors[p->vector_count] < 0) {
			int rc = error_errno(err, -errno, "cannot make an eventfd");
			close_vectors(p);
			return rc;
		}
	}
	return 0;
}

static int bind(struct drive_pci *p, enum drive_irq_mode mode, unsigned count, struct pintle_error *err)
{
	unsigned most = max_of(1u, drive_client_limits(p->client)->max_msg_fds);

	for (unsigned start = 0; start < count;) {
		unsigned n = min_of(count - start, most);
		int rc = drive_client_set_irqs(p->client, BIND, irq_index[mode], start, n, NULL, &p->vectors[start], n,
					       err);
		if (rc)
			return rc;
		start += n;
	}
	return 0;
}

static int begin_mode(struct drive_pci *p, unsigned count, struct pintle_error *err)
{
	int rc = p->irq_mode == DRIVE_IRQ_NONE ? 0 : drive_pci_disable_irqs(p, err);
	if (!rc && (!count || count > DRIVE_VECTORS))
		rc = error_set(err, -EINVAL, "%u vectors cannot be enabled", count);
	return rc ? rc : make_vectors(p, count, err);
}

int drive_pci_enable_msix(struct drive_pci *p, unsigned count, enum drive_msix_table table, struct pintle_error *err)
{
	if (!p->msix)
		return error_set(err, -EOPNOTSUPP, "the function has no MSI-X");
	int rc = begin_mode(p, count, err);
	if (rc)
		return rc;
	p->table = table;
	/* A guest writes the table with the function masked, then unmasks. */
	rc = drive_pci_config_update(p, p->msix + PCI_MSIX_FLAGS, 2, 0, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL,
				     err);
	/* QEMU: a vector without a descriptor, everything off again, then the vectors. */
	if (!rc)
		rc = drive_client_set_irqs(p->client, BIND, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, NULL, NULL, 0, err);
	if (!rc)
		rc = drive_client_set_irqs(p->client, UNBIND_ALL, VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL, NULL, 0, err);
	if (!rc)
		rc = bind(p, DRIVE_IRQ_MSIX, count, err);
	for (unsigned i = 0; !rc && table == DRIVE_TABLE_IN_BAR && i < count; i++)
		rc = drive_pci_write_entry(p, i, MSIX_ADDRESS, i, false, err);
	if (!rc)
		rc = drive_pci_mask_function(p, false, err);
	p->irq_mode = DRIVE_IRQ_MSIX;
	if (rc)
		drive_pci_disable_irqs(p, NULL);
	return rc;
}

int drive_pci_enable_msi(struct drive_pci *p, unsigned count, struct pintle_error *err)
{
	if (!p->msi)
		return error_set(err, -EOPNOTSUPP, "the function has no MSI");
	if (!is_power_of_two(count) || count > 1u << ((p->msi_flags & PCI_MSI_FLAGS_QMASK) >> 1))
		return error_set(err, -EINVAL, "MSI cannot have %u vectors here", count);
	int rc = begin_mode(p, count, err);
	if (rc)
		return rc;
	uint32_t data_at = (p->msi_flags & PCI_MSI_FLAGS_64BIT) ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32;
	rc = drive_pci_config_write(p, p->msi + PCI_MSI_ADDRESS_LO, 4, (uint32_t)MSIX_ADDRESS, err);
	if (!rc)
		rc = drive_pci_config_write(p, p->msi + data_at, 2, 0x40, err);
	if (!rc)
		rc = drive_pci_config_update(p, p->msi + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_QSIZE,
					     PCI_MSI_FLAGS_ENABLE | (uint32_t)__builtin_ctz(count) << 4, err);
	if (!rc)
		rc = bind(p, DRIVE_IRQ_MSI, count, err);
	p->irq_mode = DRIVE_IRQ_MSI;
	if (rc)
		drive_pci_disable_irqs(p, NULL);
	return rc;
}

int drive_pci_enable_intx(struct drive_pci *p, struct pintle_error *err)
{
	if (!p->interrupt_pin)
		return error_set(err, -EOPNOTSUPP, "the function has no interrupt pin");
	int rc = begin_mode(p, 1, err);
	if (rc)
		return rc;
	rc = drive_pci_set_command(p, PCI_COMMAND_INTX_DISABLE, 0, err);
	if (!rc)
		rc = bind(p, DRIVE_IRQ_INTX, 1, err);
	p->irq_mode = DRIVE_IRQ_INTX;
	if (rc)
		drive_pci_disable_irqs(p, NULL);
	return rc;
}

int drive_pci_disable_irqs(struct drive_pci *p, struct pintle_error *err)
{
	enum drive_irq_mode mode = p->irq_mode;
	int rc = 0;

	if (mode == DRIVE_IRQ_NONE)
		return 0;
	if (mode == DRIVE_IRQ_MSIX)
		rc = drive_pci_config_update(p, p->msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE, 0, err);
	else if (mode == DRIVE_IRQ_MSI)
		rc = drive_pci_config_update(p, p->msi + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE, 0, err);
	if (!rc)
		rc = drive_client_set_irqs(p->client, UNBIND_ALL, irq_index[mode], 0, 0, NULL, NULL, 0, err);
	p->irq_mode = DRIVE_IRQ_NONE;
	close_vectors(p);
	return rc;
}

int drive_pci_intx_unmask(struct drive_pci *p, struct pintle_error *err)
{
	return drive_client_set_irqs(p->client, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
				     VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL, NULL, 0, err);
}

/* ---- masks ---- */

static uint64_t entry_at(const struct drive_pci *p, unsigned vector, unsigned field)
{
	return (uint64_t)p->msix_table_offset + (uint64_t)vector * PCI_MSIX_ENTRY_SIZE + field;
}

int drive_pci_write_entry(struct drive_pci *p, unsigned vector, uint64_t address, uint32_t data, bool masked,
			  struct pintle_error *err)
{
	uint32_t words[4] = { htole32((uint32_t)address), htole32((uint32_t)(address >> 32)), htole32(data),
			      htole32(masked ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0) };
	int rc = 0;

	for (unsigned i = 0; !rc && i < 4; i++)
		rc = drive_bar_write(p, p->msix_table_bar, entry_at(p, vector, 4 * i), &words[i], 4, err);
	return rc;
}

static int set_vector_mask(struct drive_pci *p, unsigned vector, bool masked, struct pintle_error *err)
{
	uint32_t control;
	uint64_t at = entry_at(p, vector, PCI_MSIX_ENTRY_VECTOR_CTRL);

	int rc = drive_bar_read(p, p->msix_table_bar, at, &control, 4, err);
	if (rc)
		return rc;
	control = htole32((le32toh(control) & ~(uint32_t)PCI_MSIX_ENTRY_CTRL_MASKBIT) |
			  (masked ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0));
	return drive_bar_write(p, p->msix_table_bar, at, &control, 4, err);
}

int drive_pci_mask_vector(struct drive_pci *p, unsigned vector, struct pintle_error *err)
{
	return p->table == DRIVE_TABLE_IN_BAR ? set_vector_mask(p, vector, true, err) : 0;
}

int drive_pci_unmask_vector(struct drive_pci *p, unsigned vector, struct pintle_error *err)
{
	if (p->table == DRIVE_TABLE_IN_BAR)
		return set_vector_mask(p, vector, false, err);
	return drive_client_set_irqs(p->client, BIND, VFIO_PCI_MSIX_IRQ_INDEX, vector, 1, NULL, &p->vectors[vector], 1,
				     err);
}

int drive_pci_mask_function(struct drive_pci *p, bool on, struct pintle_error *err)
{
	return drive_pci_config_update(p, p->msix + PCI_MSIX_FLAGS, 2, on ? 0 : PCI_MSIX_FLAGS_MASKALL,
				       on ? PCI_MSIX_FLAGS_MASKALL : 0, err);
}

int drive_pci_pba(struct drive_pci *p, unsigned vector, bool *pending, struct pintle_error *err)
{
	uint64_t word;
	int rc = drive_bar_read(p, p->msix_pba_bar, p->msix_pba_offset + (uint64_t)(vector / 64) * 8, &word, 8, err);
	*pending = !rc && (le64toh(word) >> (vector % 64) & 1);
	return rc;
}

int64_t drive_pci_wait_vector(struct drive_pci *p, unsigned vector, int timeout_ms, struct pintle_error *err)
{
	uint64_t count = 0;

	if (vector >= p->vector_count)
		return error_set(err, -EINVAL, "vector %u is not enabled", vector);
	int rc = drive_client_wait_fd(p->client, p->vectors[vector], timeout_ms, err);
	if (rc <= 0)
		return rc;
	if (read(p->vectors[vector], &count, sizeof count) != sizeof count)
		return errno == EAGAIN ? 0 : error_errno(err, -errno, "cannot read the eventfd of vector %u", vector);
	return (int64_t)min_of(count, (uint64_t)INT64_MAX);
}

/* ---- power and resets ---- */

static void sleep_ms(unsigned ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* Times that the PCI specification gives are not time-outs: 100 ms after an FLR, 10 ms around D3hot. A function that is
 * ready earlier is not waited for, one that is not reads as all ones or shows no vendor. */
static int await_ready(struct drive_pci *p, unsigned ms, struct pintle_error *err)
{
	uint32_t id;

	for (unsigned waited = 0;; waited++) {
		int rc = drive_pci_config_read(p, PCI_VENDOR_ID, 4, &id, err);
		if (rc || (id & 0xffff) == p->vendor)
			return rc;
		if (waited == ms)
			return error_set(err, -ETIMEDOUT, "the function is not ready after %u ms", ms);
		sleep_ms(1);
	}
}

int drive_pci_flr(struct drive_pci *p, struct pintle_error *err)
{
	uint32_t caps = 0;

	int rc = p->express ? drive_pci_config_read(p, p->express + PCI_EXP_DEVCAP, 4, &caps, err) : 0;
	if (rc)
		return rc;
	if (!(caps & PCI_EXP_DEVCAP_FLR))
		return error_set(err, -EOPNOTSUPP, "the function cannot reset itself (no FLR)");
	rc = drive_pci_config_update(p, p->express + PCI_EXP_DEVCTL, 2, 0, PCI_EXP_DEVCTL_BCR_FLR, err);
	return rc ? rc : await_ready(p, 1000, err);
}

int drive_pci_power(struct drive_pci *p, unsigned state, struct pintle_error *err)
{
	if (!p->pm || state > 3)
		return error_set(err, -EOPNOTSUPP, "the function has no power state D%u", state);
	int rc = drive_pci_config_update(p, p->pm + PCI_PM_CTRL, 2, PCI_PM_CTRL_STATE_MASK, state, err);
	return rc ? rc : await_ready(p, 100, err);
}

int drive_pci_bist(struct drive_pci *p, uint8_t *completion, struct pintle_error *err)
{
	uint32_t bist;

	int rc = drive_pci_config_read(p, PCI_BIST, 1, &bist, err);
	if (rc)
		return rc;
	if (!(bist & PCI_BIST_CAPABLE))
		return error_set(err, -EOPNOTSUPP, "the function has no self test");
	rc = drive_pci_config_write(p, PCI_BIST, 1, PCI_BIST_START, err);
	/* 2 s are what the specification allows it. */
	for (unsigned ms = 0; !rc && ms < 2000; ms++) {
		rc = drive_pci_config_read(p, PCI_BIST, 1, &bist, err);
		if (rc || !(bist & PCI_BIST_START)) {
			*completion = bist & PCI_BIST_CODE_MASK;
			return rc;
		}
		sleep_ms(1);
	}
	return rc ? rc : error_set(err, -ETIMEDOUT, "the self test did not end within 2 s");
}

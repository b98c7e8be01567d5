// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a helper thread does with the hardware. The order is the one that was found to work (docs/roads/host.md): the command register is written through VFIO first, which makes the kernel
 * restore the BARs; then interrupts are switched off and on, which writes the messages again. Neither a reset by VFIO nor the other order heals anything.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "host/private.h"

static int read_config(const struct host_vfio *vfio, uint32_t at, uint32_t *value, uint32_t width)
{
	uint8_t bytes[4] = { 0 };
	int r = host_vfio_read(vfio, VFIO_PCI_CONFIG_REGION_INDEX, at, bytes, width);

	*value = load_le32(bytes);
	return r;
}

static int write_command(const struct host_vfio *vfio, uint16_t command)
{
	uint8_t bytes[2] = { (uint8_t)command, (uint8_t)(command >> 8) };

	return host_vfio_write(vfio, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, bytes, sizeof bytes);
}

/* VFIO answers the identity from its own copy; the command register comes from the device. */
static bool answers(const struct host_vfio *vfio, uint32_t *command)
{
	return !read_config(vfio, PCI_COMMAND, command, 2) && *command != 0xffff;
}

/* ---- resets ---- */

const char *host_unclean(const struct host_vfio *vfio, uint32_t msix_at)
{
	uint32_t command, control;

	if (!answers(vfio, &command))
		return "it does not answer";
	if (command & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER))
		return "its command register is not clear";
	if (!msix_at)
		return NULL;
	if (read_config(vfio, msix_at + PCI_MSIX_FLAGS, &control, 2) || control == 0xffff)
		return "its MSI-X capability does not answer";
	if (control & PCI_MSIX_FLAGS_ENABLE)
		return "its MSI-X is still enabled";
	if (control & PCI_MSIX_FLAGS_MASKALL)
		return "its MSI-X function mask (mask-all) is still set";
	return NULL;
}

static int choose(const struct host_vfio *vfio, const char *methods)
{
	if (vfio->method_fd < 0)
		return -EPERM;
	return pwrite(vfio->method_fd, methods, strlen(methods), 0) < 0 ? -errno : 0;
}

static const char *try_reset(const struct host_vfio *vfio, uint32_t msix_at, int (*reset)(const struct host_vfio *))
{
	write_command(vfio, 0);
	int r = reset(vfio);

	return r ? strerror(-r) : host_unclean(vfio, msix_at);
}

unsigned host_reset(const struct host_vfio *vfio, const struct host_device *device, uint32_t msix_at, char *said, size_t size)
{
	char methods[HOST_NAME_MAX + 1], *rest = methods;
	const char *wrong = try_reset(vfio, msix_at, host_vfio_reset);
	unsigned tries = 1;

	if (!wrong)
		return tries;
	/* The kernel's first choice has not helped: the others by name, in its order, the bus last. */
	snprintf(methods, sizeof methods, "%s", device->reset_methods);
	snprintf(said, size, "reset by %s: %s", strsep(&rest, " "), wrong);
	for (char *method; wrong && (method = strsep(&rest, " "));) {
		if (!*method)
			continue;
		tries++;
		wrong = choose(vfio, method) ? "the method cannot be chosen" : try_reset(vfio, msix_at, host_vfio_reset);
		if (wrong)
			snprintf(said, size, "reset by %s: %s", method, wrong);
	}
	if (tries > 1)
		choose(vfio, device->reset_methods);
	if (wrong) {
		tries++;
		wrong = try_reset(vfio, msix_at, host_vfio_hot_reset);
		if (wrong)
			snprintf(said, size, "hot reset of the bus: %s", wrong);
	}
	return wrong ? 0 : tries;
}

/* ---- interrupts ---- */

static int irqs_off(struct host_job *job)
{
	int r = job->held.index < 0 ? 0 : host_vfio_unbind(job->vfio, (unsigned)job->held.index);

	job->held.index = -1;
	return r;
}

/* Vectors that are not bound at the end of the range need not be there: fewer are asked of the kernel. */
static uint32_t used(const struct host_irqs *irqs)
{
	uint32_t count = irqs->count;

	while (count && irqs->fds[count - 1] < 0)
		count--;
	return count;
}

static int irqs_on(struct host_job *job)
{
	uint32_t count = used(&job->wanted);

	return count ? host_vfio_bind(job->vfio, (unsigned)job->wanted.index, 0, count, job->wanted.fds) : 0;
}

/*
 * Off and on. What a vector had to say between the two is lost in the kernel, so each that was bound before is told to look: an interrupt too many harms no driver, one too few does.
 */
static int irqs_again(struct host_job *job)
{
	bool same_mode = job->held.index == job->wanted.index && job->wanted.index >= 0 && job->wanted.index != VFIO_PCI_INTX_IRQ_INDEX;
	uint32_t was = same_mode ? used(&job->held) : 0;
	int r = irqs_off(job);

	if (!r && job->wanted.index >= 0)
		r = irqs_on(job);
	for (uint32_t i = 0; !r && i < min_of(was, job->wanted.count); i++)
		if (job->held.fds[i] >= 0 && job->wanted.fds[i] >= 0)
			r = host_vfio_trigger(job->vfio, (unsigned)job->wanted.index, i);
	return r;
}

/* Only what differs, in runs. A vector beyond those that were enabled means off and on, where the kernel cannot add it. */
static int irqs_change(struct host_job *job)
{
	uint32_t was = used(&job->held), is = used(&job->wanted), index = (uint32_t)job->wanted.index;

	if (!was || !is || index == VFIO_PCI_INTX_IRQ_INDEX || (is > was && !job->vfio->irqs_grow[index]))
		return irqs_again(job);
	for (uint32_t i = 0; i < max_of(was, is);) {
		uint32_t end = i;

		while (end < max_of(was, is) && job->held.fds[end] != job->wanted.fds[end])
			end++;
		if (end > i) {
			int r = host_vfio_bind(job->vfio, index, i, end - i, job->wanted.fds + i);
			if (r)
				return r;
		}
		i = end + 1;
	}
	return 0;
}

static bool irqs_same(const struct host_job *job)
{
	return job->held.index == job->wanted.index && job->held.count == job->wanted.count &&
	       !memcmp(job->held.fds, job->wanted.fds, job->held.count * sizeof *job->held.fds);
}

/*
 * The line's mask: the client's, or the delivery's, which an unmasking ends. Interrupt Disable is the kernel's own business (it follows the command register). A line that was up before it was bound
 * need not have been noticed: masked and unmasked, the kernel looks at the device.
 */
static int make_intx(struct host_job *job, bool fresh)
{
	int r = 0;

	/* The kernel takes no second one in place of the first. */
	if (!fresh && job->held_unmask_fd >= 0 && job->unmask_fd != job->held_unmask_fd)
		r = host_vfio_unmask_fd(job->vfio, -1);
	if (!r && job->unmask_fd >= 0 && (fresh || job->unmask_fd != job->held_unmask_fd))
		r = host_vfio_unmask_fd(job->vfio, job->unmask_fd);
	if (!r && (job->mask || fresh))
		r = host_vfio_mask_intx(job->vfio, true);
	if (!r && !job->mask && (fresh || job->unmask || job->held_mask))
		r = host_vfio_mask_intx(job->vfio, false);
	return r;
}

static int make_irqs(struct host_job *job, bool again)
{
	bool fresh = again || !irqs_same(job);
	int r = 0;

	if (again || job->held.index != job->wanted.index || job->held.count != job->wanted.count)
		r = irqs_again(job);
	else if (!irqs_same(job))
		r = irqs_change(job);
	return r || job->wanted.index != VFIO_PCI_INTX_IRQ_INDEX || !used(&job->wanted) ? r : make_intx(job, fresh);
}

/* ---- the whole ---- */

/* Has the device been reset behind everyone's back? */
static bool look(struct host_job *job)
{
	uint32_t command, control = 0;

	if (!answers(job->vfio, &command)) {
		snprintf(job->said, sizeof job->said, "the device does not answer (its command register reads as ones)");
		return false;
	}
	if (job->msix_at && read_config(job->vfio, job->msix_at + PCI_MSIX_FLAGS, &control, 2))
		control = 0;
	bool on = job->held.index == VFIO_PCI_MSIX_IRQ_INDEX && used(&job->held);
	const uint32_t bits = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	if ((command & bits) == (job->held_command & bits) && (!on || (control & PCI_MSIX_FLAGS_ENABLE)))
		return true;
	job->lost = true;
	snprintf(job->said, sizeof job->said, "reset by somebody else: command %#x instead of %#x, MSI-X %s", command, job->held_command,
		 !on ? "not used" : control & PCI_MSIX_FLAGS_ENABLE ? "on" : "off");
	return true;
}

static bool verify(struct host_job *job)
{
	uint32_t command, control = 0;
	const uint32_t bits = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

	if (!answers(job->vfio, &command))
		return false;
	if ((command & bits) != (job->wanted_command & bits)) {
		snprintf(job->said, sizeof job->said, "the command register reads as %#x after %#x was written", command, job->wanted_command);
		return false;
	}
	if (job->wanted.index != VFIO_PCI_MSIX_IRQ_INDEX || !used(&job->wanted))
		return true;
	return !read_config(job->vfio, job->msix_at + PCI_MSIX_FLAGS, &control, 2) && control & PCI_MSIX_FLAGS_ENABLE;
}

void host_job_run(struct helper_work *work)
{
	struct host_job *job = container_of(work, struct host_job, work);

	if (job->look && !look(job))
		return;
	if (job->off) {
		/* The device stops before its interrupts and memory go. */
		write_command(job->vfio, 0);
		job->held_command = 0;
		irqs_off(job);
	}
	if (job->reset) {
		job->tries = host_reset(job->vfio, job->device, job->msix_at, job->said, sizeof job->said);
		if (!job->tries)
			return;
		job->held_command = 0;
	}
	if (job->lost || job->reset || job->held_command != job->wanted_command)
		job->error = write_command(job->vfio, job->wanted_command);
	if (!job->error)
		job->error = make_irqs(job, job->lost || job->reset);
	if (job->error) {
		snprintf(job->said, sizeof job->said, "the kernel refused: %s", strerror(-job->error));
		return;
	}
	job->held_command = job->wanted_command;
	job->ready = verify(job);
}

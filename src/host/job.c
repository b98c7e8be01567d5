// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a helper thread does with the hardware. The order is the one that was found to work (docs/roads/host.md): the command register is written through VFIO first, which makes the kernel
 * restore the BARs; then interrupts are switched off and on, which writes the messages again. Neither a reset by VFIO nor the other order heals anything.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mutate.h"
#include "base/num.h"
#include "host/private.h"

#define RECOVERY_MS 3000u
#define RECOVERY_STEP_MS 20u

static int read_config(const struct host_vfio *vfio, uint32_t at, uint32_t *value, uint32_t width)
{
	uint8_t bytes[4] = { 0 };
	int r = host_vfio_read(vfio, VFIO_PCI_CONFIG_REGION_INDEX, at, bytes, width);

	*value = load_le32(bytes);
	return r;
}

/* ---- interrupts ---- */

static int irqs_off(struct host_job *job)
{
	int r = job->held.index < 0 ? 0 : host_vfio_unbind(job->hands.vfio, (unsigned)job->held.index);

	job->held.index = -1;
	job->held.top = 0;
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
	bool intx = job->wanted.index == VFIO_PCI_INTX_IRQ_INDEX;
	uint32_t count = used(&job->wanted);

	/* Messages that nobody has bound are enabled by one without an eventfd. */
	if (!count && !intx && job->wanted.count)
		count = 1;
	int r = count ? host_vfio_bind(job->hands.vfio, (unsigned)job->wanted.index, 0, count, job->wanted.fds) : 0;

	job->held.top = r || intx ? 0 : count;
	return r;
}

/*
 * Off and on. What a vector had to say between the two is lost in the kernel, so each that was bound before is told to look: an interrupt too many harms no driver, one too few does.
 */
static int irqs_again(struct host_job *job)
{
	bool same_mode = job->held.index == job->wanted.index && job->wanted.index >= 0 && job->wanted.index != VFIO_PCI_INTX_IRQ_INDEX;
	uint32_t was = same_mode ? used(&job->held) : 0;
	int r = irqs_off(job);

	if (!r && job->wanted.index >= 0) {
		r = irqs_on(job);
		/* Whatever comes of the rest: this is what the next one has to switch off. */
		job->held.index = job->wanted.index;
	}
	for (uint32_t i = 0; !r && i < min_of(was, job->wanted.count); i++)
		if (job->held.fds[i] >= 0 && job->wanted.fds[i] >= 0)
			r = host_vfio_trigger(job->hands.vfio, (unsigned)job->wanted.index, i);
	return r;
}

/* Only what differs, in runs. A vector beyond those that were enabled means off and on, where the kernel cannot add it. */
static int irqs_change(struct host_job *job)
{
	uint32_t was = used(&job->held), is = used(&job->wanted), index = (uint32_t)job->wanted.index;

	if (!job->held.top || index == VFIO_PCI_INTX_IRQ_INDEX || (is > job->held.top && !job->hands.vfio->irqs_grow[index]))
		return irqs_again(job);
	job->held.top = max_of(job->held.top, is);
	for (uint32_t i = 0; i < max_of(was, is);) {
		uint32_t end = i;

		while (end < max_of(was, is) && job->held.fds[end] != job->wanted.fds[end])
			end++;
		if (end > i) {
			int r = host_vfio_bind(job->hands.vfio, index, i, end - i, job->wanted.fds + i);
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
		r = host_vfio_unmask_fd(job->hands.vfio, -1);
	if (!r && job->unmask_fd >= 0 && (fresh || job->unmask_fd != job->held_unmask_fd))
		r = host_vfio_unmask_fd(job->hands.vfio, job->unmask_fd);
	if (!r && (job->mask || fresh))
		r = host_vfio_mask_intx(job->hands.vfio, true);
	if (!r && !job->mask && (fresh || job->unmask || job->held_mask))
		r = host_vfio_mask_intx(job->hands.vfio, false);
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

/* Found in D3hot by somebody else's doing: a cycle, because the kernel believes that it is in D0. Only where No_Soft_Reset is clear has that reset anything. */
static void wake(struct host_job *job)
{
	if (host_is_awake(job->hands.marks, job->hands.vfio))
		return;
	host_vfio_power_cycle(job->hands.vfio, job->hands.marks->power_at);
	job->lost = job->hands.marks->soft_reset;
	snprintf(job->said, sizeof job->said, "found in D3hot%s", job->lost ? ", which resets it" : ", woken; its state is kept");
}

#define WATCHED (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

/* Has the device been reset behind everyone's back? false: it does not answer, or is not to be trusted any more. */
static bool look(struct host_job *job)
{
	uint32_t command, control = 0;
	char wrong[HOST_SAID];

	host_errors_read(job->hands.marks, job->hands.vfio, &job->errors);
	if (!host_answers(job->hands.vfio, &command)) {
		snprintf(job->said, sizeof job->said, "the device does not answer (its command register reads as ones)");
		return false;
	}
	job->fatal = host_errors_fatal(job->hands.marks, job->hands.vfio);
	if (job->fatal) {
		snprintf(job->said, sizeof job->said, "the bus reports a fatal error of the device (AER status %#x)", job->fatal);
		return false;
	}
	wake(job);
	if (job->hands.marks->msix_at && read_config(job->hands.vfio, job->hands.marks->msix_at + PCI_MSIX_FLAGS, &control, 2))
		control = 0;
	bool on = job->held.index == VFIO_PCI_MSIX_IRQ_INDEX && job->held.top;
	if ((command & WATCHED) != (job->held_command & WATCHED) || (on && !(control & PCI_MSIX_FLAGS_ENABLE))) {
		job->lost = true;
		snprintf(job->said, sizeof job->said, "reset by somebody else: command %#x instead of %#x, MSI-X %s", command, job->held_command,
			 !on ? "not used" : control & PCI_MSIX_FLAGS_ENABLE ? "on" : "off");
	} else if (!mutate(MUTATE_LAW2_BARS) && !host_marks_hold(job->hands.marks, wrong, sizeof wrong)) {
		job->lost = true;
		snprintf(job->said, sizeof job->said, "reset by somebody else: %s", wrong);
	}
	return true;
}

static bool verify(struct host_job *job)
{
	uint32_t command, control = 0;
	char wrong[HOST_SAID];

	if (!host_answers(job->hands.vfio, &command)) {
		snprintf(job->said, sizeof job->said, "it has ceased to answer");
		return false;
	}
	if ((command & WATCHED) != (job->wanted_command & WATCHED)) {
		snprintf(job->said, sizeof job->said, "the command register reads as %#x after %#x was written", command, job->wanted_command);
		return false;
	}
	if ((job->lost || job->reset) && !host_marks_hold(job->hands.marks, wrong, sizeof wrong)) {
		snprintf(job->said, sizeof job->said, "%s", wrong);
		return false;
	}
	if (job->wanted.index != VFIO_PCI_MSIX_IRQ_INDEX || !job->held.top)
		return true;
	if (!read_config(job->hands.vfio, job->hands.marks->msix_at + PCI_MSIX_FLAGS, &control, 2) && control & PCI_MSIX_FLAGS_ENABLE)
		return true;
	snprintf(job->said, sizeof job->said, "MSI-X reads as off after it was switched on");
	return false;
}

/*
 * A fatal error makes the kernel reset the link, some tens of milliseconds after it has told us, and restore nothing: ours has to come after that. Where it does not (errors are the firmware's
 * business) time is all that is lost.
 */
static void await_recovery(const struct host_job *job)
{
	unsigned left_ms = min_of(RECOVERY_MS, job->hands.marks->ready_ms);
	char wrong[HOST_SAID];
	uint32_t command;

	while (left_ms >= RECOVERY_STEP_MS && host_answers(job->hands.vfio, &command) && host_marks_hold(job->hands.marks, wrong, sizeof wrong)) {
		nanosleep(&(struct timespec){ .tv_nsec = RECOVERY_STEP_MS * 1000000L }, NULL);
		left_ms -= RECOVERY_STEP_MS;
	}
}

/* false: it has not come back. */
static bool reset(struct host_job *job)
{
	char said[sizeof job->said] = "";

	if (job->recovery)
		await_recovery(job);
	job->tries = host_reset(&job->hands, job->power, said, sizeof said);
	if (said[0])
		memcpy(job->said, said, sizeof said);
	host_errors_read(job->hands.marks, job->hands.vfio, &job->errors);
	job->held_command = 0;
	return job->tries;
}

void host_job_run(struct helper_work *work)
{
	struct host_job *job = container_of(work, struct host_job, work);

	if (job->look && !look(job))
		return;
	if (job->off) {
		/* The device stops before its interrupts and memory go. */
		if (!host_write_command(job->hands.vfio, 0))
			atomic_store_explicit(&job->quiet, true, memory_order_release);
		job->held_command = 0;
		irqs_off(job);
	}
	if (job->reset && !reset(job))
		return;
	if (job->lost || job->reset || job->held_command != job->wanted_command)
		job->error = host_write_command(job->hands.vfio, job->wanted_command);
	if (!job->error && job->lost)
		host_marks_write(job->hands.marks, job->hands.vfio);
	if (!job->error)
		job->error = make_irqs(job, job->lost || job->reset);
	if (job->error) {
		snprintf(job->said, sizeof job->said, "the kernel refused: %s", strerror(-job->error));
		return;
	}
	job->held_command = job->wanted_command;
	job->ready = verify(job);
}

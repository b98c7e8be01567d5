// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 2 on hardware: what the guest's function wants is compared with what the kernel holds, and jobs on a helper thread make them equal, one at a time. Whoever changes what is wanted
 * only says so (host_hardware_stale); the life is held until it is true, so that the access is answered then and not before.
 *
 * A reset that takes its time holds nobody: the guest's access that asked for it is answered when the device has stopped, and until it is ready reads give all-ones (law 8). The client's own DEVICE_RESET
 * is answered when it has ended, as VFIO does, but not later than its patience allows. Only the end of a client waits for it however long it takes (law 4).
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutate.h"
#include "base/num.h"
#include "host/private.h"

/* QEMU gives up after 5 s. */
#define PATIENCE_NS UINT64_C(2000000000)
/* Then, until the device has stopped. */
#define STOPPING_NS UINT64_C(10000000)

static void plan(struct host_function *host);

/* ---- holding ---- */

static void hold(struct host_function *host)
{
	/* While a reset runs nobody waits: what is wanted is made true at its end. */
	if (host->holding || host->state != HOST_READY)
		return;
	host->holding = true;
	life_hold(pci_function_life(host->pci));
}

static void let_go(struct host_function *host)
{
	if (!host->holding)
		return;
	host->holding = false;
	life_release(pci_function_life(host->pci));
}

static void planned(struct loop_message *message)
{
	struct host_function *host = container_of(message, struct host_function, message);

	host->posted = false;
	plan(host);
}

static void plan_later(struct host_function *host)
{
	if (host->posted)
		return;
	host->posted = true;
	loop_post(host->owner, &host->message, planned);
}

void host_hardware_again(struct host_function *host)
{
	plan_later(host);
}

void host_hardware_stale(struct host_function *host)
{
	host->stale = true;
	hold(host);
	plan_later(host);
}

/* ---- what is wanted ---- */

static bool has_client(const struct host_function *host)
{
	return !(life_conditions(pci_function_life(host->pci)) & LIFE_NO_CLIENT);
}

/* While one of these closes the gate the device does not touch memory, whatever its own power state is (law 1). */
#define STILL (LIFE_NOT_D0 | LIFE_STOPPED | LIFE_DETACHING | LIFE_BLOCKED)

static uint16_t wanted_command(const struct host_function *host)
{
	uint16_t command = (uint16_t)(pci_function_config_peek(host->pci, PCI_COMMAND, 2) & HOST_COMMAND);

	if (!has_client(host) || host->state == HOST_FAILED)
		return 0;
	if (life_conditions(pci_function_life(host->pci)) & STILL || host_mapping_is_broken(host->mapping))
		command &= (uint16_t)~PCI_COMMAND_MASTER;
	return command;
}

static void wanted_irqs(const struct host_function *host, struct host_irqs *irqs)
{
	static const struct {
		enum irq_kind kind;
		int index;
	} modes[] = {
		{ IRQ_MSIX, VFIO_PCI_MSIX_IRQ_INDEX }, { IRQ_MSI, VFIO_PCI_MSI_IRQ_INDEX }, { IRQ_INTX, VFIO_PCI_INTX_IRQ_INDEX },
	};
	const struct irq_set *set = pci_function_irq(host->pci);
	uint32_t conditions = irq_conditions(set);
	unsigned mode = conditions & IRQ_MSIX_ENABLED ? 0 : conditions & IRQ_MSI_ENABLED ? 1 : 2;
	bool any = false;

	irqs->count = irq_count(set, modes[mode].kind);
	for (uint32_t i = 0; i < irqs->count; i++) {
		irqs->fds[i] = irq_target(set, modes[mode].kind, i);
		any = any || irqs->fds[i] >= 0;
	}
	/*
	 * INTx is bound lazily: without a trigger it is none. What the guest has enabled is enabled in the device, with all of its vectors masked, too: what it has to say then is pending in it, and some devices
	 * look at it (NVMe creates no queue for a vector without MSI-X).
	 */
	any = any || modes[mode].kind != IRQ_INTX;
	irqs->index = any && has_client(host) ? modes[mode].index : -1;
	if (irqs->index < 0)
		irqs->count = 0;
}

static bool irqs_same(const struct host_irqs *a, const struct host_irqs *b)
{
	return a->index == b->index && a->count == b->count && !memcmp(a->fds, b->fds, a->count * sizeof *a->fds);
}

static void irqs_copy(struct host_irqs *to, const struct host_irqs *from)
{
	to->index = from->index;
	to->count = from->count;
	to->top = from->top;
	memcpy(to->fds, from->fds, from->count * sizeof *from->fds);
}

/* Fills the job's wanted side; true if it is not what is held. */
static bool compare(struct host_function *host)
{
	const struct irq_set *set = pci_function_irq(host->pci);
	struct host_job *job = &host->job;

	job->wanted_command = wanted_command(host);
	wanted_irqs(host, &job->wanted);
	job->unmask_fd = irq_unmask_target(set);
	job->unmasks = irq_unmasks(set);
	job->unmask = job->unmasks != host->unmasks;
	job->mask = irq_intx_is_masked(set);
	return job->wanted_command != host->held_command || !irqs_same(&job->wanted, &host->held) || job->unmask ||
	       (job->wanted.index == VFIO_PCI_INTX_IRQ_INDEX && (job->unmask_fd != host->held_unmask_fd || job->mask != host->held_mask));
}

/* ---- jobs ---- */

static void say(struct host_function *host, const char *text)
{
	snprintf(host->last, sizeof host->last, "%s", text);
}

static void answer_check(struct host_function *host, int found)
{
	void (*done)(void *, int) = host->asked.done;

	host->asked.done = NULL;
	if (done)
		done(host->asked.context, found);
}

/* The device is no use to its guest any more: it answers with ones until the client goes, and is not offered again. */
static void fail(struct host_function *host)
{
	if (host->state != HOST_FAILED)
		log_error(host->log, "%s: %s; out of use until somebody has looked at it", host->device.address,
			  host->last[0] ? host->last : "it did not come back");
	host->state = HOST_FAILED;
	host->clean = false;
}

static void answer_reset(struct host_function *host)
{
	loop_timer_disarm(&host->patience);
	if (!host->answer_holds)
		return;
	host->answer_holds = false;
	life_release(pci_function_life(host->pci));
}

/* The answer may come before the reset has ended, but never before the device has stopped: it would write into the memory of whoever comes next (law 1). */
static void patience_ended(struct loop_timer *timer)
{
	struct host_function *host = container_of(timer, struct host_function, patience);

	if (host->running && host->job.reset && atomic_load_explicit(&host->job.quiet, memory_order_acquire))
		answer_reset(host);
	else
		loop_timer_arm(host->owner, &host->patience, loop_clock() + STOPPING_NS, patience_ended);
}

static void reset_ended(struct host_function *host, const struct host_job *job)
{
	host->resets++;
	host->escalations += job->tries > 1 ? job->tries - 1 : 0;
	if (!job->tries) {
		fail(host);
	} else {
		/* Another may have been asked for meanwhile: it is not ready before that one has ended. */
		host->state = host->wants_reset ? HOST_RESETTING : HOST_READY;
		host->clean = true;
		if (job->tries > 1)
			log_warning(host->log, "%s came back after %u tries (%s)", host->device.address, job->tries, job->said);
	}
	if (!host->wants_reset)
		answer_reset(host);
	if (host->wants_reset || !host->reset_holds)
		return;
	host->reset_holds = false;
	life_release(pci_function_life(host->pci));
}

static void found_reset(struct host_function *host, const struct host_job *job)
{
	host->found++;
	log_limited(LOG_LEVEL_WARNING, host->log, "%s: %s: %s", host->device.address, job->said,
		    job->ready ? "restored" : "could not be restored, and is reset");
	if (job->ready) {
		host->healed++;
		return;
	}
	/* What VFIO alone cannot restore ends in a reset, never in silence: the guest finds a device that has been reset. */
	host_hardware_reset(host, LIFE_EVENT_UNANNOUNCED_RESET);
}

/* It has looked: what does that mean? */
static void looked(struct host_function *host, const struct host_job *job)
{
	bool recovery = job->fatal || host->after_error;

	host->checks++;
	host->after_error = false;
	if (job->lost) {
		found_reset(host, job);
	} else if (!job->ready && host->state == HOST_READY) {
		if (job->fatal)
			host->fatals++;
		log_limited(LOG_LEVEL_ERROR, host->log, "%s: %s; it is reset", host->device.address, host->last);
		host->wants_recovery = recovery;
		host_hardware_reset(host, LIFE_EVENT_UNANNOUNCED_RESET);
	} else if (job->said[0]) {
		log_limited(LOG_LEVEL_WARNING, host->log, "%s: %s", host->device.address, job->said);
	}
	answer_check(host, job->lost && job->ready ? 1 : job->ready ? 0 : -EIO);
}

static void ended(struct helper_work *work)
{
	struct host_job *job = container_of(work, struct host_job, work);
	struct host_function *host = container_of(job, struct host_function, job);

	host->running = false;
	host->held_command = job->held_command;
	if (job->said[0])
		say(host, job->said);
	if (job->look || job->reset)
		host_events_note(host, &job->errors);
	if (job->ready) {
		job->wanted.top = job->held.top;
		irqs_copy(&host->held, &job->wanted);
		host->held_unmask_fd = job->unmask_fd;
		host->held_mask = job->mask;
		host->unmasks = job->unmasks;
	} else {
		/* Not known: off and on the next time. */
		host->held.index = job->held.index;
		host->held.top = job->held.top;
		host->held.count = 0;
	}
	if (job->reset)
		reset_ended(host, job);
	if (job->look) {
		looked(host, job);
	} else if (!job->ready && host->state == HOST_READY && !job->reset) {
		log_limited(LOG_LEVEL_ERROR, host->log, "%s: %s; it is reset", host->device.address, host->last);
		host_hardware_reset(host, LIFE_EVENT_UNANNOUNCED_RESET);
	}
	host_mapping_pause(host->mapping, false);
	plan(host);
}

static void run(struct host_function *host)
{
	struct host_job *job = &host->job;

	job->hands = (struct host_hands){ &host->vfio, &host->methods, &host->marks };
	job->held_command = host->held_command;
	job->held_mask = host->held_mask;
	job->held_unmask_fd = host->held_unmask_fd;
	irqs_copy(&job->held, &host->held);
	job->reset = host->wants_reset;
	job->off = job->reset;
	job->power = job->reset && host->wants_power;
	job->recovery = job->reset && host->wants_recovery;
	/* Whoever has asked for a look is answered by the one after the reset. */
	job->look = host->wants_look && !job->reset;
	job->lost = job->ready = false;
	job->fatal = 0;
	atomic_store_explicit(&job->quiet, false, memory_order_relaxed);
	job->tries = 0;
	job->error = 0;
	job->said[0] = 0;
	host->wants_look = host->wants_look && !job->look;
	host->wants_reset = host->wants_power = host->wants_recovery = false;
	host->running = true;
	if (job->reset) {
		/* Nobody waits for it, so that nothing that may be closed meanwhile is given to it: what is wanted comes with the next job. */
		job->wanted_command = 0;
		job->wanted.index = -1;
		job->wanted.count = 0;
		let_go(host);
	} else if (!host->holding) {
		host->holding = true;
		life_hold(pci_function_life(host->pci));
	}
	host->jobs++;
	/* A device that is being stopped may still write: its memory stays until it is. A reset that takes a minute keeps nobody's memory. */
	host_mapping_pause(host->mapping, !job->reset && !(job->wanted_command & PCI_COMMAND_MASTER) && (job->held_command & PCI_COMMAND_MASTER));
	job->work = (struct helper_work){ .run = host_job_run, .done = ended, .home = host->owner };
	helper_submit(&job->work);
}

static void plan(struct host_function *host)
{
	if (host->running)
		return;
	host->stale = false;
	if (has_client(host) != host->attended) {
		host->attended = !host->attended;
		/* What has happened while nobody was there is found before anybody uses the device. */
		host->wants_look = host->wants_look || (host->attended && host->state == HOST_READY);
		/* It failed while nobody was there: once more, as at the end of a client. */
		host->wants_reset = host->wants_reset || (host->attended && host->state == HOST_FAILED);
		host_hardware_watch(host, host->attended);
	}
	if (host->state == HOST_FAILED && !host->wants_reset) {
		host->wants_look = false;
		answer_check(host, -EIO);
	} else if (host->wants_reset && host->reset_holds && !host_client_is_dead(host)) {
		/* It has a descriptor of the device: no reset means anything before it has ended. */
		return;
	} else if (compare(host) || host->wants_reset || host->wants_look) {
		run(host);
		return;
	}
	let_go(host);
	if (host->stopping && !host->posted && !host_mapping_busy(host->mapping)) {
		host->stopping = false;
		host->stopped(host->stopped_context);
	}
}

/* ---- resets ---- */

void host_hardware_reset(struct host_function *host, enum life_event event)
{
	bool handover = event == LIFE_EVENT_DISCONNECT, power = event == LIFE_EVENT_POWER_RESET;

	/* With any other it is the other's way. */
	host->wants_power = power && (!host->wants_reset || host->wants_power);
	host->wants_reset = true;
	if (handover && !host->reset_holds) {
		host->reset_holds = true;
		life_hold(pci_function_life(host->pci));
	}
	/* The guest takes the device for ready 10 ms after D0, which is less than the kernel needs: it gets its answer when it is. After FLR it waits itself, but its memory is another's from the answer on. */
	bool until_ready = event == LIFE_EVENT_DEVICE_RESET || power;
	if ((until_ready || event == LIFE_EVENT_FLR) && host->state != HOST_FAILED) {
		if (!host->answer_holds)
			life_hold(pci_function_life(host->pci));
		if (until_ready || !host->answer_holds)
			loop_timer_arm(host->owner, &host->patience, loop_clock() + (until_ready ? PATIENCE_NS : STOPPING_NS), patience_ended);
		host->answer_holds = true;
	}
	if (host->state == HOST_READY || handover)
		host->state = HOST_RESETTING;
	/* Nobody waits for what is made true at its end; but what is under way uses what may be closed when nobody waits. */
	if (!host->running)
		let_go(host);
	plan_later(host);
}

/* ---- looking ---- */

static void check_time(struct loop_timer *timer)
{
	struct host_function *host = container_of(timer, struct host_function, check);

	host_hardware_watch(host, has_client(host));
	if (host->state != HOST_READY || mutate(MUTATE_LAW2_CHECK))
		return;
	host->wants_look = true;
	plan_later(host);
}

void host_hardware_watch(struct host_function *host, bool on)
{
	if (!on || !host->check_ns || host->stopping)
		loop_timer_disarm(&host->check);
	else
		loop_timer_arm(host->owner, &host->check, loop_clock() + host->check_ns, check_time);
}

void host_function_check(struct host_function *host, void (*done)(void *context, int found), void *context)
{
	/* Who is told is one at a time. */
	if (host->asked.done && done) {
		done(context, -EBUSY);
		return;
	}
	if (done) {
		host->asked.done = done;
		host->asked.context = context;
	}
	host->wants_look = true;
	plan_later(host);
}

void host_hardware_init(struct host_function *host)
{
	host->held.index = host->job.held.index = host->job.wanted.index = -1;
	host->held_unmask_fd = host->client_pidfd = -1;
	host->state = HOST_READY;
	host->clean = true;
}

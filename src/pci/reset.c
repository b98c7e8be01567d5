// SPDX-License-Identifier: BSD-2-Clause
/*
 * Resets and changes of clients. Each event keeps its name (law 8); what they have in common is a chain of steps, each of which begins when what the one
 * before has begun is over.
 *
 * A client's going is the ordered path of law 4: stop new work, quiesce, unbind every trigger, drop the mappings, reset, verify; only
 * then is the function free for the next one. What does not verify is tried once more from the unbinding on, and then quarantined.
 */
#include <errno.h>
#include <linux/pci_regs.h>

#include "base/mutate.h"
#include "base/num.h"
#include "pci/internal.h"

/* ---- resets ---- */

static void registers_reset(struct pci_function *function)
{
	function->master_seen = false;
	pci_config_reset(&function->config);
	pci_conditions_update(function);
	irq_reset_wanted(function->irq);
}

/* What I/O threads may have raised between the beginning of the reset and their quiescence belongs to the life before. */
static void drop_interrupts(struct pci_function *function)
{
	atomic_store(&function->intx, false);
	irq_drop_pending(function->irq);
}

static void reset_ended(struct pci_function *function)
{
	/* The guest does not know about an unannounced reset: an interrupt that it is owed stays owed. */
	if (function->reset_event != LIFE_EVENT_UNANNOUNCED_RESET)
		drop_interrupts(function);
	if (life_state(function->life) == LIFE_STATE_RESETTING)
		life_move(function->life, LIFE_EVENT_SETTLED);
	life_open(function->life, LIFE_RESET);
	pci_queue_settle(function);
}

static void device_reset(struct pci_function *function, enum life_event event)
{
	if ((event == LIFE_EVENT_FLR && mutate(MUTATE_LAW8_FLR)) || (event == LIFE_EVENT_POWER_RESET && mutate(MUTATE_LAW8_POWER)))
		return;
	if (function->ops->reset)
		function->ops->reset(function->device, event);
}

/* One that the guest or its client asked for: everything is as PCI says it is after a reset, but what the client has bound. */
static int reset_all(struct pci_function *function, enum life_event event)
{
	int ret = life_move(function->life, event);
	if (ret)
		return ret;
	life_close(function->life, LIFE_RESET);
	device_reset(function, event);
	registers_reset(function);
	drop_interrupts(function);
	function->reset_event = event;
	function->after = reset_ended;
	return 0;
}

/* The founding case of law 2: the device's own copy of the MSI-X table is gone, everything else goes on. */
static int reset_unannounced(struct pci_function *function, enum life_event event)
{
	int ret = life_move(function->life, event);
	if (ret)
		return ret;
	life_close(function->life, LIFE_RESET);
	device_reset(function, event);
	irq_lose_held(function->irq);
	irq_reconcile(function->irq);
	function->reset_event = event;
	function->after = reset_ended;
	return 0;
}

/* ---- clients ---- */

static int connect_client(struct pci_function *function, enum life_event event)
{
	if (life_move(function->life, event))
		return -EBUSY;
	life_open(function->life, LIFE_NO_CLIENT);
	return 0;
}

static bool is_clean(const struct pci_function *function)
{
	struct irq_vector_info info;
	struct dma_stats stats;
	bool clean = true;

	for (int kind = 0; kind < IRQ_KINDS; kind++)
		for (uint32_t i = 0; i < irq_count(function->irq, (enum irq_kind)kind); i++)
			if (irq_vector_info(function->irq, (enum irq_kind)kind, i, &info) || info.bound || info.pending)
				clean = false;
	if (function->ops->clean && !function->ops->clean(function->device))
		clean = false;
	dma_space_stats(function->dma, &stats);
	if (stats.mappings || pci_config_get(&function->config, PCI_COMMAND, 2))
		clean = false;
	if (pci_msi_conditions(function) & IRQ_MSI_ENABLED)
		clean = false;
	uint32_t msix = pci_msix_conditions(function);
	if (function->msix_at && (!(msix & IRQ_MSIX_FUNCTION_UNMASKED) || (msix & IRQ_MSIX_ENABLED)))
		clean = false;
	return clean;
}

static void leave_unbind(struct pci_function *function);

static void leave_verify(struct pci_function *function)
{
	drop_interrupts(function);
	if (is_clean(function)) {
		life_open(function->life, LIFE_RESET);
		life_move(function->life, LIFE_EVENT_SETTLED);
	} else if (!function->escalated) {
		log_warning(&function->log, "the client has left something behind; once more");
		function->escalated = true;
		leave_unbind(function);
		return;
	} else {
		log_error(&function->log, "the client's bindings, mappings or registers could not be cleared: quarantined, not offered again");
		life_move(function->life, LIFE_EVENT_UNCLEAN);
		function->current->result = -EIO;
	}
	pci_queue_settle(function);
}

static void leave_reset(struct pci_function *function)
{
	device_reset(function, LIFE_EVENT_DISCONNECT);
	registers_reset(function);
	drop_interrupts(function);
	function->after = leave_verify;
	pci_queue_settle(function);
}

static void unmapped(struct dma_commit *commit)
{
	leave_reset(container_of(commit, struct pci_function, commit));
}

static void leave_unbind(struct pci_function *function)
{
	if (!mutate(MUTATE_LAW4_UNBIND)) {
		irq_unbind_all(function->irq);
		int ret = dma_space_unmap_all(function->dma);
		if (ret)
			log_error(&function->log, "cannot drop the client's mappings: %s", strerror(-ret));
	}
	if (dma_space_commit(function->dma, &function->commit, unmapped))
		leave_reset(function);
}

/* Is nothing of a client's left, because it has been through here or there was none? */
static bool has_no_client(const struct pci_function *function)
{
	return life_conditions(function->life) & LIFE_NO_CLIENT;
}

static int leave(struct pci_function *function, enum life_event event)
{
	int ret = life_move(function->life, event);
	if (ret)
		return ret;
	enum life_state state = life_state(function->life);
	if (state == LIFE_STATE_UNPLUGGING || state == LIFE_STATE_GONE)
		life_close(function->life, LIFE_DETACHING);
	if (state == LIFE_STATE_QUARANTINED || has_no_client(function))
		return 0;
	life_close(function->life, LIFE_NO_CLIENT | LIFE_RESET);
	function->escalated = false;
	function->after = leave_unbind;
	return 0;
}

/* With nobody there it is the whole unplug. Else the client is told; it may have bound nothing to be told by, or do nothing. */
static int ask(struct pci_function *function, enum life_event event)
{
	int ret = life_move(function->life, event);
	if (ret)
		return ret;
	if (life_state(function->life) == LIFE_STATE_GONE)
		life_close(function->life, LIFE_DETACHING);
	else if (life_state(function->life) == LIFE_STATE_ASKED)
		irq_signal(function->irq, IRQ_REQ);
	return 0;
}

static int plug(struct pci_function *function, enum life_event event)
{
	/* The client of what was removed still holds on to it. */
	if (!has_no_client(function))
		return -EBUSY;
	int ret = life_move(function->life, event);
	if (!ret)
		life_open(function->life, LIFE_DETACHING);
	return ret;
}

/*
 * Surprise removal. Nobody has agreed to it, and the client stays connected to nothing: from now on its accesses are answered with all-ones (access.c), and what it maps or binds
 * meanwhile goes when it does, by the path above.
 */
static void removal_ended(struct pci_function *function)
{
	drop_interrupts(function);
	life_open(function->life, LIFE_RESET);
	pci_queue_settle(function);
}

static void removal_reset(struct dma_commit *commit)
{
	struct pci_function *function = container_of(commit, struct pci_function, commit);
	device_reset(function, LIFE_EVENT_DISCONNECT);
	registers_reset(function);
	drop_interrupts(function);
	function->after = removal_ended;
	pci_queue_settle(function);
}

static void removal_unbind(struct pci_function *function)
{
	irq_unbind_all(function->irq);
	int ret = dma_space_unmap_all(function->dma);
	if (ret)
		log_error(&function->log, "cannot drop the client's mappings yet: %s", strerror(-ret));
	if (dma_space_commit(function->dma, &function->commit, removal_reset))
		removal_reset(&function->commit);
}

static int be_removed(struct pci_function *function, enum life_event event)
{
	int ret = life_move(function->life, mutate(MUTATE_LAW8_REMOVAL) ? LIFE_EVENT_UNPLUG_ASK : event);
	if (ret || mutate(MUTATE_LAW8_REMOVAL))
		return ret;
	life_close(function->life, LIFE_DETACHING);
	if (has_no_client(function))
		return 0;
	life_close(function->life, LIFE_RESET);
	function->after = removal_unbind;
	return 0;
}

int pci_reset(struct pci_function *function, enum life_event event)
{
	static int (*const table[LIFE_EVENT_COUNT])(struct pci_function *, enum life_event) = {
		[LIFE_EVENT_CONNECT] = connect_client,
		[LIFE_EVENT_DISCONNECT] = leave,
		[LIFE_EVENT_DEVICE_RESET] = reset_all,
		[LIFE_EVENT_FLR] = reset_all,
		[LIFE_EVENT_POWER_RESET] = reset_all,
		[LIFE_EVENT_SECONDARY_BUS_RESET] = reset_all,
		[LIFE_EVENT_VM_RESET] = reset_all,
		[LIFE_EVENT_UNANNOUNCED_RESET] = reset_unannounced,
		[LIFE_EVENT_UNPLUG_ASK] = ask,
		[LIFE_EVENT_UNPLUG_FORCE] = leave,
		[LIFE_EVENT_SURPRISE_REMOVAL] = be_removed,
		[LIFE_EVENT_PLUG] = plug,
	};
	if ((unsigned)event >= LIFE_EVENT_COUNT || !table[event])
		return -EINVAL;
	return table[event](function, event);
}

// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 2, interrupts agree: after events that touch only some of the parties, the next interrupt comes, exactly once, without the client binding anything
 * again.
 */
#include "load.h"

#define IMAGE (UINT64_C(4) << 20)

struct bench_top {
	struct rig rig;
	struct drive_client *client;
	struct drive_blk *blk;
};

static void set_up(struct bench_top *t)
{
	struct drive_blk_options options = rig_blk_options();

	*t = (struct bench_top){ 0 };
	rig_device(&t->rig, IMAGE, NULL);
	rig_start(&t->rig);
	t->client = rig_connect(&t->rig, 0);
	t->blk = rig_open(t->client, &options);
}

static void tear_down(struct bench_top *t)
{
	drive_blk_close(t->blk);
	drive_client_close(t->client);
	rig_end(&t->rig);
}

/* ---- the founding case: a reset behind everybody's back ---- */

static void irq_unannounced(void)
{
	struct bench_top t;
	uint8_t completion = 0xff;
	uint32_t entry[4], again[4];

	set_up(&t);
	struct drive_pci *pci = t.blk->pci;
	uint64_t at = pci->msix_table_offset + (uint64_t)t.blk->queues[0].vector * PCI_MSIX_ENTRY_SIZE;
	count_interrupts(t.blk, "at first");
	if (scenario.table_in_bar)
		must(drive_bar_read(pci, pci->msix_table_bar, at, entry, sizeof entry, &err));
	for (unsigned i = 0; i < 3; i++) {
		must(drive_pci_bist(pci, &completion, &err));
		check(!completion, "the self test failed (%u)", completion);
		count_interrupts(t.blk, "after an unannounced reset");
		check_healthy(t.blk, "after an unannounced reset");
	}
	if (scenario.table_in_bar) {
		must(drive_bar_read(pci, pci->msix_table_bar, at, again, sizeof again, &err));
		check(!memcmp(entry, again, sizeof entry), "the table was not restored");
	}
	tear_down(&t);
}

static void irq_unannounced_load(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;
	uint8_t completion;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, LOAD_IMAGE, NULL);
	rig_start(&rig);
	load_init(&load, rig.devices[0].image, scenario.seed);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	for (unsigned i = 0; i < 100; i++) {
		load_pump_for(&load, (double)(random_next(&load.random) % 2000) / 1e3);
		must(drive_pci_bist(blk->pci, &completion, &err));
		if (i % 4 == 0)
			load_drain(&load, "after an unannounced reset under load");
	}
	load_drain(&load, "after an unannounced reset under load");
	load_verify_all(&load, "unannounced resets");
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

/* ---- masks ---- */

static void mask_vector(struct drive_blk *blk, bool masked)
{
	struct drive_pci *pci = blk->pci;
	unsigned vector = blk->queues[0].vector;

	if (pci->table == DRIVE_TABLE_IN_BAR)
		must(masked ? drive_pci_mask_vector(pci, vector, &err) : drive_pci_unmask_vector(pci, vector, &err));
	else /* such a client unbinds; binding is the unmask */
		must(drive_client_set_irqs(pci->client, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, vector, 1,
					   NULL, &pci->vectors[vector], !masked, &err));
}

static void mask_by_message(struct drive_blk *blk, bool masked)
{
	must(drive_client_set_irqs(blk->pci->client, VFIO_IRQ_SET_DATA_NONE | (masked ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK),
				   VFIO_PCI_MSIX_IRQ_INDEX, blk->queues[0].vector, 1, NULL, NULL, 0, &err));
}

static void mask_function(struct drive_blk *blk, bool masked)
{
	must(drive_pci_mask_function(blk->pci, masked, &err));
}

static void try_mask(struct drive_blk *blk, void (*mask)(struct drive_blk *, bool), const char *name, unsigned requests)
{
	bool pending = false;
	char what[96];

	snprintf(what, sizeof what, "%s: an interrupt that was raised while masked", name);
	mask(blk, true);
	for (unsigned i = 0; i < requests; i++) {
		check(drive_queue_arm(&blk->queues[0].ring), "%s: something is in the used ring already", name);
		put(blk, 0, 0, VIRTIO_BLK_T_IN, 0, 4096);
		collect(blk, 0, 1, name);
	}
	check(no_interrupt(blk, 0, 30), "%s: an interrupt came through the mask", name);
	must(drive_pci_pba(blk->pci, blk->queues[0].vector, &pending, &err));
	check(pending, "%s: the pending bit is not set: the interrupt was dropped", name);
	mask(blk, false);
	int64_t n = await_interrupt(blk, 0, what);
	check(n == 1, "%s: was delivered %lld times", what, (long long)n);
	must(drive_pci_pba(blk->pci, blk->queues[0].vector, &pending, &err));
	check(!pending, "%s: the pending bit stays set after the delivery (would be delivered twice)", name);
	mask(blk, true);
	mask(blk, false);
	check(no_interrupt(blk, 0, 20), "%s: was delivered twice", what);
	count_interrupts(blk, name);
}

static void irq_masks(void)
{
	static const struct {
		const char *name;
		void (*mask)(struct drive_blk *, bool);
	} masks[] = { { "vector", mask_vector }, { "function mask", mask_function }, { "mask by message", mask_by_message } };
	struct bench_top t;

	set_up(&t);
	for (unsigned round = 0; round < 3; round++)
		for (size_t i = 0; i < ARRAY_SIZE(masks); i++)
			try_mask(t.blk, masks[i].mask, masks[i].name, 1 + round * 2);
	tear_down(&t);
}

/* ---- what the client has not read when delivery ends ---- */

static void end_delivery_by_master(struct drive_blk *blk, bool end)
{
	must(drive_pci_bus_master(blk->pci, !end, &err));
}

static void end_delivery_by_power(struct drive_blk *blk, bool end)
{
	must(drive_pci_power(blk->pci, end ? 3 : 0, &err));
}

/* A client may look at its eventfd only after the access, and drop what it finds: so nothing may be left in it, and nothing forgotten. */
static void irq_take_back(void)
{
	static void (*const ways[])(struct drive_blk *, bool) = { end_delivery_by_master, end_delivery_by_power };
	struct bench_top t;

	set_up(&t);
	for (unsigned i = 0; i < 10; i++) {
		check(drive_queue_arm(&t.blk->queues[0].ring), "something is in the used ring already");
		put(t.blk, 0, 0, VIRTIO_BLK_T_IN, 0, 4096);
		must(drive_client_wait_fd(t.client, t.blk->queues[0].eventfd, min_of(PATIENCE_MS, 10000), &err));
		ways[i & 1](t.blk, true);
		check(no_interrupt(t.blk, 0, 0), "a signal that the client had not read was left to it");
		ways[i & 1](t.blk, false);
		int64_t n = await_interrupt(t.blk, 0, "after delivery was possible again");
		check(n == 1, "what was taken back was delivered %lld times", (long long)n);
		collect(t.blk, 0, 1, "a request whose interrupt was taken back");
		count_interrupts(t.blk, "after an interrupt was taken back");
	}
	tear_down(&t);
}

/* ---- INTx and MSI-X, back and forth ---- */

static void one_intx(struct drive_blk *blk, const char *when)
{
	uint8_t isr;

	check(drive_queue_arm(&blk->queues[0].ring), "%s: something is in the used ring already", when);
	put(blk, 0, 0, VIRTIO_BLK_T_IN, 0, 4096);
	int64_t n = drive_pci_wait_vector(blk->pci, 0, 5000, &err);
	must(n);
	check(n == 1, "%s: %lld INTx interrupts instead of one", when, (long long)n);
	collect(blk, 0, 1, when);
	must(drive_virtio_isr(&blk->virtio, &isr, &err));
	check(isr & 1, "%s: the ISR says %#x", when, isr);
	must(drive_pci_intx_unmask(blk->pci, &err));
	n = drive_pci_wait_vector(blk->pci, 0, 5, &err);
	must(n);
	check(!n, "%s: the line was driven again after the ISR was read", when);
}

/* What was raised with MSI-X disabled is in the ISR, and is not replayed as a message. */
static void raise_unseen(struct drive_blk *blk)
{
	uint8_t isr;

	check(drive_queue_arm(&blk->queues[0].ring), "something is in the used ring already");
	put(blk, 0, 0, VIRTIO_BLK_T_IN, 0, 4096);
	collect(blk, 0, 1, "INTx mode");
	must(drive_pci_enable_msix(blk->pci, blk->queue_count + 1, blk->o.table, &err));
	check(no_interrupt(blk, 0, 20), "an interrupt of the INTx time was replayed by MSI-X");
	must(drive_virtio_isr(&blk->virtio, &isr, &err));
}

static void irq_switch(void)
{
	struct bench_top t;

	set_up(&t);
	for (unsigned i = 0; i < 10; i++) {
		count_interrupts(t.blk, "MSI-X after a switch");
		must(drive_pci_enable_intx(t.blk->pci, &err));
		for (unsigned k = 0; k < 3; k++)
			one_intx(t.blk, "INTx after a switch");
		raise_unseen(t.blk);
	}
	tear_down(&t);
}

static void drain_intx(struct load *load)
{
	double end = now_ms() + PATIENCE_MS;
	uint8_t isr;

	while (load->outstanding) {
		if (load_take(load))
			continue;
		check(now_ms() < end, "a request was lost in INTx mode");
		if (!drive_queue_arm(&load->blk->queues[0].ring))
			continue;
		int64_t n = drive_pci_wait_vector(load->blk->pci, 0, 5000, &err);
		must(n);
		check(n || !drive_queue_pending(&load->blk->queues[0].ring), "the INTx interrupt was lost");
		must(drive_virtio_isr(&load->blk->virtio, &isr, &err));
		must(drive_pci_intx_unmask(load->blk->pci, &err));
	}
}

static void irq_switch_load(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, LOAD_IMAGE, NULL);
	rig_start(&rig);
	load_init(&load, rig.devices[0].image, scenario.seed);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	for (unsigned i = 0; i < 40; i++) {
		load_pump_for(&load, 2);
		must(drive_pci_enable_intx(blk->pci, &err));
		load_pump_for(&load, 2);
		drain_intx(&load);
		must(drive_pci_enable_msix(blk->pci, blk->queue_count + 1, options.table, &err));
		load_pump_for(&load, 2);
		load_drain(&load, "MSI-X after INTx");
	}
	load_verify_all(&load, "switches of the interrupt mode");
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

/* ---- resets keep what the client has bound ---- */

static void reset_flr(struct drive_blk *blk)
{
	must(drive_pci_flr(blk->pci, &err));
}

static void reset_device(struct drive_blk *blk)
{
	must(drive_client_reset(blk->client, &err));
}

static void reset_virtio(struct drive_blk *blk)
{
	must(drive_virtio_reset(&blk->virtio, &err));
}

static void reset_power(struct drive_blk *blk)
{
	must(drive_pci_power(blk->pci, 3, &err));
	must(drive_pci_power(blk->pci, 0, &err));
}

static void irq_resets(void)
{
	static const struct {
		const char *name;
		void (*reset)(struct drive_blk *);
		bool restarts, drops; /* what is pending */
	} resets[] = { { "FLR", reset_flr, true, true },
		       { "DEVICE_RESET", reset_device, true, true },
		       { "status 0", reset_virtio, true, false },
		       { "D3hot and D0", reset_power, false, false } };
	struct bench_top t;

	set_up(&t);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(resets); i++) {
		const char *name = resets[i / 2].name;
		char when[64];
		snprintf(when, sizeof when, "after %s", name);
		/* Every other time with an interrupt pending, which belongs to the life before. */
		if (i & 1 && resets[i / 2].drops) {
			mask_function(t.blk, true);
			check(drive_queue_arm(&t.blk->queues[0].ring), "something is in the used ring already");
			put(t.blk, 0, 0, VIRTIO_BLK_T_IN, 0, 4096);
			collect(t.blk, 0, 1, name);
		}
		resets[i / 2].reset(t.blk);
		if (resets[i / 2].restarts) {
			must(drive_pci_assign_bars(t.blk->pci, 0xe0000000u, UINT64_C(1) << 40, &err));
			check(!status_of(t.blk), "%s left the status at %#x", name, status_of(t.blk));
			restart_keeping_triggers(t.blk, true);
		}
		check(no_interrupt(t.blk, 0, 10), "%s: an interrupt of the life before", when);
		count_interrupts(t.blk, when);
	}
	tear_down(&t);
}

const struct scenario_entry interrupt_scenarios[] = {
	{ "irq-unannounced", irq_unannounced, "BIST loses the device's table: the next interrupt comes nevertheless" },
	{ "irq-unannounced-load", irq_unannounced_load, "the same under load" },
	{ "irq-masks", irq_masks, "what is raised while masked is delivered once" },
	{ "irq-take-back", irq_take_back, "what the client has not read when delivery ends is delivered when it can be again" },
	{ "irq-switch", irq_switch, "INTx and MSI-X back and forth" },
	{ "irq-switch-load", irq_switch_load, "the same under load" },
	{ "irq-resets", irq_resets, "no reset unbinds the client's triggers" },
	{ NULL, NULL, NULL },
};

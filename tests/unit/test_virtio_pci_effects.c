// SPDX-License-Identifier: BSD-2-Clause
/*
 * What has effects beyond its registers: the interrupt status and its line, the two kinds of interrupts under load, notifications, the window in configuration space, and what
 * every reset leaves (law 8).
 */
#include "virtio_pci_image.h"

/* ---- the interrupt status ---- */

/* Only a read of its byte clears it, and takes the line down. */
static void test_isr(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	pci_start_driver(&p, false);
	const struct place *place = &p.places[VIRTIO_PCI_CAP_ISR_CFG];
	for (uint32_t length = 1; length <= 8; length *= 2) {
		assert_false(line_is_up(&p));
		pci_round(&p, 0);
		assert_true(line_is_up(&p));
		for (uint32_t offset = 1; offset < 8; offset++)
			assert_true(get(&p, place->bar, place->offset + offset, 1) == 0);
		set(&p, place->bar, place->offset, length, 0);
		set(&p, place->bar, place->offset, length, UINT64_MAX);
		assert_true(line_is_up(&p));
		virtio_device_config_changed(p.rig.device);
		rig_idle(&p.rig);
		assert_true(get(&p, place->bar, place->offset, length) == (ISR_QUEUE_BIT | VIRTIO_PCI_ISR_CONFIG));
		assert_false(line_is_up(&p));
		assert_true(get(&p, place->bar, place->offset, length) == 0);
		virtio_device_config_changed(p.rig.device);
		rig_idle(&p.rig);
		assert_true(line_is_up(&p));
		assert_int_equal(isr(&p), VIRTIO_PCI_ISR_CONFIG);
	}
	pci_end(&p);
}

/* The driver goes from one kind to the other and back while requests end. Whatever was raised on the way: afterwards the new kind works, and is alone. */
static void test_switch_under_load(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	bind_all(&p);
	p.intx = bind_trigger(&p, IRQ_INTX, 0);
	pci_start_driver(&p, true);
	for (unsigned i = 0; i < 100; i++) {
		bool msix = i % 2;
		atomic_store(&p.rig.mode, i % 3 ? MODE_INSIDE : MODE_AT_ONCE);
		for (unsigned n = 0; n < 4; n++) {
			rig_send(&p.rig, 0);
			rig_send(&p.rig, 1);
			if (n == 2)
				config_set(&p, p.msix + PCI_MSIX_FLAGS, 2, msix ? PCI_MSIX_FLAGS_ENABLE : 0);
		}
		for (unsigned n = 0; n < 4; n++) {
			rig_wait_used(&p.rig, 0);
			rig_wait_used(&p.rig, 1);
		}
		rig_sync(&p.rig);
		/* What a driver does when it has switched: it looks at its rings and forgets the old. */
		isr(&p);
		assert_int_equal(irq_mask(pci_function_irq(p.function), IRQ_INTX, 0, 1, false), 0);
		rig_idle(&p.rig);
		came(p.intx);
		for (unsigned v = 0; v <= RIG_QUEUES; v++)
			came(p.vectors[v]);
		pci_round(&p, i % RIG_QUEUES);
		assert_int_equal(came(p.vectors[i % RIG_QUEUES + 1]), msix);
		assert_int_equal(came(p.intx), !msix);
		assert_int_equal(line_is_up(&p), !msix);
		assert_int_equal(isr(&p), msix ? 0 : ISR_QUEUE_BIT);
		assert_false(line_is_up(&p));
	}
	pci_end(&p);
}

/* ---- notifications ---- */

/* Its own address is a queue's, whatever is written; no other is anybody's. */
static void test_notify(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	pci_start_driver(&p, true);
	const struct place *place = &p.places[VIRTIO_PCI_CAP_NOTIFY_CFG];
	for (unsigned q = 0; q < RIG_QUEUES; q++) {
		for (uint32_t width = 2; width <= 4; width += 2) {
			rig_add(&p.rig, q);
			set(&p, place->bar, place->offset + q * p.notify_multiplier, width, 0xdead);
			rig_wait_used(&p.rig, q);
		}
	}
	uint64_t kicks = rig_stats(&p.rig, 0).kicks + rig_stats(&p.rig, 1).kicks;
	rig_add(&p.rig, 0);
	for (uint32_t offset = 0; offset < 64; offset++) {
		if (offset >= RIG_QUEUES * p.notify_multiplier || offset % p.notify_multiplier)
			set(&p, place->bar, place->offset + offset, 2, 0);
		assert_true(get(&p, place->bar, place->offset + offset, 4) == 0);
	}
	set(&p, place->bar, place->offset + 0xffc, 4, 0);
	rig_sync(&p.rig);
	assert_true(rig_stats(&p.rig, 0).kicks + rig_stats(&p.rig, 1).kicks == kicks);
	assert_int_equal(rig_take(&p.rig, 0), -1);
	notify(&p, 0);
	rig_wait_used(&p.rig, 0);
	pci_end(&p);
}

/* ---- the window (section 4.1.4.9) ---- */

static void aim(struct pci_rig *p, uint32_t bar, uint32_t offset, uint32_t length)
{
	uint32_t at = p->places[VIRTIO_PCI_CAP_PCI_CFG].capability;
	config_set(p, at + VIRTIO_PCI_CAP_BAR, 1, bar);
	config_set(p, at + VIRTIO_PCI_CAP_OFFSET, 4, offset);
	config_set(p, at + VIRTIO_PCI_CAP_LENGTH, 4, length);
}

/* A write and a read of the data. */
static void touch(struct pci_rig *p, uint32_t inside, uint32_t width)
{
	uint32_t at = p->places[VIRTIO_PCI_CAP_PCI_CFG].capability + 16 + inside;
	config_set(p, at, width, 0x01010101);
	config_get(p, at, width);
	config_set(p, at, width, 0);
}

/* Every field through it, by its own width; memory decoding off or on. */
static void test_window_reaches_all(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	fill_in(&p);
	struct image whole = look(&p);
	const struct place *common = &p.places[VIRTIO_PCI_CAP_COMMON_CFG];
	uint32_t data = p.places[VIRTIO_PCI_CAP_PCI_CFG].capability + 16;
	for (unsigned decode = 0; decode < 2; decode++) {
		config_set(&p, PCI_COMMAND, 2, decode ? COMMAND_ON : 0);
		for (size_t i = 0; i < ARRAY_SIZE(common_fields); i++) {
			const struct common_field *field = &common_fields[i];
			uint8_t value[4];
			aim(&p, common->bar, common->offset + field->offset, field->size);
			store_le32(value, config_get(&p, data, field->size));
			assert_memory_equal(value, whole.bytes + field->offset, field->size);
		}
	}
	/* Also in parts of fields, as a BAR is read. */
	for (uint32_t length = 1; length <= 4; length *= 2) {
		for (uint32_t offset = 0; offset < COMMON_SIZE; offset += length) {
			uint8_t value[4];
			aim(&p, common->bar, common->offset + offset, length);
			store_le32(value, config_get(&p, data, length));
			assert_memory_equal(value, whole.bytes + offset, length);
		}
	}
	aim(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_Q_DESCHI, 4);
	config_set(&p, data, 4, 0xcafe0123);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_DESCHI, 4), 0xcafe0123);
	pci_end(&p);
}

/* Aimed at nothing, or touched otherwise than it was aimed: neither a register nor the interrupt status changes, nor is a queue kicked. */
static void test_window_aside(void **state)
{
	static const uint32_t lengths[] = { 0, 3, 5, 8, 16, 0x100, 0x10001, 0x80000000, 0xffffffff };
	static const uint32_t outside[] = { 0x4000, 0x3ffe, 0x8000, 0x10000, 0x7ffffffc, 0x80000000, 0xfffffffc };
	static const uint32_t bars[] = { 0, 1, 2, 3, 5, 6, 7, 0x14, 0xff };
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	pci_start_driver(&p, false);
	pci_round(&p, 0); /* there is something in the interrupt status */
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	struct all before = look_at_all(&p);
	uint64_t kicks = rig_stats(&p.rig, 0).kicks;
	static const uint32_t targets[] = { VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG };
	for (size_t t = 0; t < ARRAY_SIZE(targets); t++) {
		const struct place *place = &p.places[targets[t]];
		uint32_t at = place->offset + (targets[t] == VIRTIO_PCI_CAP_COMMON_CFG ? VIRTIO_PCI_COMMON_Q_DESCLO : 0);
		for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
			aim(&p, place->bar, at, lengths[i]);
			touch(&p, 0, 4);
		}
		for (size_t i = 0; i < ARRAY_SIZE(bars); i++) {
			aim(&p, bars[i], at, 4);
			touch(&p, 0, 4);
		}
		/* Not at the beginning of the data, and shorter than it says. */
		aim(&p, place->bar, at, 4);
		for (uint32_t inside = 0; inside < 4; inside++)
			touch(&p, inside, 1);
		touch(&p, 0, 2);
		touch(&p, 2, 2);
		aim(&p, place->bar, at, 2);
		touch(&p, 0, 1);
		touch(&p, 2, 2);
		aim(&p, place->bar, at, 1);
		touch(&p, 1, 1);
		touch(&p, 2, 2);
	}
	const struct place *common = &p.places[VIRTIO_PCI_CAP_COMMON_CFG];
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		aim(&p, common->bar, outside[i], 4);
		touch(&p, 0, 4);
	}
	for (uint32_t off = 1; off < 4; off++) {
		aim(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_Q_DESCLO + off, 4);
		touch(&p, 0, 4);
		aim(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_Q_SIZE + 1, 2);
		touch(&p, 0, 2);
	}
	assert_unchanged(&p, &before);
	rig_sync(&p.rig);
	assert_true(rig_stats(&p.rig, 0).kicks == kicks);
	assert_int_equal(isr(&p), ISR_QUEUE_BIT);
	/* And aimed well it kicks, and clears. */
	pci_round(&p, 0);
	aim(&p, p.places[VIRTIO_PCI_CAP_ISR_CFG].bar, p.places[VIRTIO_PCI_CAP_ISR_CFG].offset, 1);
	assert_int_equal(config_get(&p, p.places[VIRTIO_PCI_CAP_PCI_CFG].capability + 16, 1), ISR_QUEUE_BIT);
	assert_int_equal(isr(&p), 0);
	rig_add(&p.rig, 1);
	aim(&p, p.places[VIRTIO_PCI_CAP_NOTIFY_CFG].bar, p.places[VIRTIO_PCI_CAP_NOTIFY_CFG].offset + p.notify_multiplier, 2);
	config_set(&p, p.places[VIRTIO_PCI_CAP_PCI_CFG].capability + 16, 2, 1);
	rig_wait_used(&p.rig, 1);
	pci_end(&p);
}

/* ---- what a reset leaves ---- */

static void reset_by(struct pci_rig *p, enum life_event what)
{
	if (what == LIFE_EVENT_VIRTIO_RESET) {
		common_set(p, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	} else if (what == LIFE_EVENT_FLR) {
		for (uint32_t at = config_get(p, PCI_CAPABILITY_LIST, 1); at; at = config_get(p, at + 1, 1))
			if (config_get(p, at, 1) == PCI_CAP_ID_EXP)
				config_set(p, at + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	} else {
		event(p, what);
	}
	if (what == LIFE_EVENT_DISCONNECT) {
		event(p, LIFE_EVENT_CONNECT);
		rig_map(&p->rig, RIG_BASE, RIG_SIZE, false);
	}
}

/* Each by its name (law 8): all registers are as in a function that nobody has used. One nobody announced leaves virtio as it was. */
static void test_resets_leave(void **state)
{
	static const enum life_event events[] = { LIFE_EVENT_VIRTIO_RESET, LIFE_EVENT_DEVICE_RESET, LIFE_EVENT_FLR, LIFE_EVENT_SECONDARY_BUS_RESET,
						  LIFE_EVENT_VM_RESET, LIFE_EVENT_DISCONNECT };
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	config_set(&p, PCI_COMMAND, 2, COMMAND_ON);
	struct all fresh = look_at_all(&p);
	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		for (unsigned point = 0; point < 3; point++) {
			if (point == 0) {
				fill_in(&p);
			} else {
				/* Running by INTx, with the line up; and faulted. */
				pci_start_driver(&p, false);
				pci_round(&p, 0);
				common_set(&p, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
				common_set(&p, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
			}
			if (point == 2) {
				virtio_device_fault(p.rig.device, "the test says so");
				rig_until(&p.rig, status(&p) & VIRTIO_CONFIG_S_NEEDS_RESET);
			}
			reset_by(&p, events[i]);
			assert_int_equal(config_get(&p, PCI_COMMAND, 2), events[i] == LIFE_EVENT_VIRTIO_RESET ? COMMAND_ON : 0);
			config_set(&p, PCI_COMMAND, 2, COMMAND_ON);
			assert_unchanged(&p, &fresh);
			assert_false(line_is_up(&p));
			assert_int_equal(isr(&p), 0);
			assert_int_equal(rig_conditions(&p.rig), LIFE_NO_DRIVER);
		}
	}
	fill_in(&p);
	struct all before = look_at_all(&p);
	event(&p, LIFE_EVENT_UNANNOUNCED_RESET);
	config_set(&p, PCI_COMMAND, 2, COMMAND_ON);
	assert_unchanged(&p, &before);
	reset_by(&p, LIFE_EVENT_VIRTIO_RESET);
	pci_start_driver(&p, false);
	pci_round(&p, 0);
	before = look_at_all(&p);
	event(&p, LIFE_EVENT_UNANNOUNCED_RESET);
	config_set(&p, PCI_COMMAND, 2, COMMAND_ON);
	assert_unchanged(&p, &before);
	pci_round(&p, 0);
	pci_end(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_isr), RIG_BOTH(test_switch_under_load), RIG_BOTH(test_notify), RIG_BOTH(test_window_reaches_all),
		RIG_BOTH(test_window_aside), RIG_BOTH(test_resets_leave),
	};
	return cmocka_run_group_tests_name("effects of virtio over PCI", tests, NULL, NULL);
}

// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtio over PCI as a driver finds it: capabilities, the common configuration by table, the window in configuration space, interrupts by MSI-X and INTx, and
 * every reset by its name (law 8). All accesses go the way a road's do.
 */
#include "virtio_pci_rig.h"

/* ---- what is there ---- */

static void test_layout(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	assert_int_equal(config_get(&p, PCI_VENDOR_ID, 4), 0x1af4 | (0x1040 + 42) << 16);
	assert_true(config_get(&p, PCI_REVISION_ID, 1) >= 1);
	assert_int_equal(config_get(&p, PCI_CLASS_REVISION, 4) >> 8, 0x018000);
	for (unsigned type = VIRTIO_PCI_CAP_COMMON_CFG; type <= VIRTIO_PCI_CAP_DEVICE_CFG; type++) {
		const struct place *place = &p.places[type];
		struct pci_region_info info;
		assert_true(place->capability && is_aligned(place->capability, 4) && place->length);
		pci_function_region(p.function, place->bar, &info);
		assert_true(range_within(place->offset, place->length, info.size));
		for (unsigned other = 1; other < type; other++)
			assert_false(p.places[other].bar == place->bar &&
				     ranges_overlap(place->offset, place->length, p.places[other].offset, p.places[other].length));
	}
	assert_true(p.places[VIRTIO_PCI_CAP_PCI_CFG].capability);
	/* Notifications have a page of their own, and each queue its address. */
	assert_true(is_aligned(p.places[VIRTIO_PCI_CAP_NOTIFY_CFG].offset, 4096));
	assert_int_equal(p.notify_multiplier, 4);
	assert_true(p.places[VIRTIO_PCI_CAP_COMMON_CFG].length >= 60);
	assert_int_equal((config_get(&p, p.msix + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1, RIG_QUEUES + 1);
	pci_end(&p);
}

static void test_common(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	config_set(&p, PCI_COMMAND, 2, COMMAND_ON);
	uint64_t offered = 0;
	for (uint32_t word = 0; word < 4; word++) {
		common_set(&p, VIRTIO_PCI_COMMON_DFSELECT, 4, word);
		uint64_t bits = common_get(&p, VIRTIO_PCI_COMMON_DF, 4);
		if (word < 2)
			offered |= bits << 32 * word;
		else
			assert_true(bits == 0);
	}
	assert_true(offered == virtio_device_offered(p.rig.device));
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_NUMQ, 2), RIG_QUEUES);
	common_set(&p, VIRTIO_PCI_COMMON_NUMQ, 2, 9);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_NUMQ, 2), RIG_QUEUES);
	common_set(&p, VIRTIO_PCI_COMMON_Q_DESCLO, 8, UINT64_C(0x123456789abcdef0));
	common_set(&p, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0x11111111);
	assert_true(common_get(&p, VIRTIO_PCI_COMMON_Q_DESCLO, 8) == UINT64_C(0x111111119abcdef0));
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_DESCLO, 2), 0xdef0);
	/* Half of a field changes nothing. */
	common_set(&p, VIRTIO_PCI_COMMON_Q_SIZE, 1, 8);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
	common_set(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2, RIG_QUEUES + 1);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
	common_set(&p, VIRTIO_PCI_COMMON_MSIX, 2, 2);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_MSIX, 2), 2);
	/* A queue that does not exist. */
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, RIG_QUEUES);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	common_set(&p, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	common_set(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
	common_set(&p, 58, 2, 1);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	/* Beyond the structure, and over the end of the BAR's. */
	assert_true(common_get(&p, 60, 4) == 0);
	uint8_t block[256];
	memset(block, 0xff, sizeof block);
	assert_int_equal(access_function(&p, p.places[VIRTIO_PCI_CAP_NOTIFY_CFG].bar, 0x3f80, block, 128, true), 0);
	/* Whole, as one block: read side effects once each. */
	assert_int_equal(access_function(&p, p.places[VIRTIO_PCI_CAP_COMMON_CFG].bar, 0, block, 64, false), 0);
	assert_int_equal(load_le16(block + VIRTIO_PCI_COMMON_NUMQ), RIG_QUEUES);
	pci_end(&p);
}

static uint64_t window(struct pci_rig *p, uint32_t bar, uint32_t offset, uint32_t length, bool write, uint32_t value)
{
	uint32_t at = p->places[VIRTIO_PCI_CAP_PCI_CFG].capability;
	config_set(p, at + VIRTIO_PCI_CAP_BAR, 1, bar);
	config_set(p, at + VIRTIO_PCI_CAP_OFFSET, 4, offset);
	config_set(p, at + VIRTIO_PCI_CAP_LENGTH, 4, length);
	uint32_t access = length == 1 || length == 2 ? length : 4;
	if (write)
		config_set(p, at + 16, access, value);
	return write ? 0 : config_get(p, at + 16, access);
}

static void test_window(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	const struct place *common = &p.places[VIRTIO_PCI_CAP_COMMON_CFG];
	/* Memory decoding is off: this is what the window is for. */
	assert_int_equal(window(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_NUMQ, 2, false, 0), RIG_QUEUES);
	window(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_STATUS, 1, true, RIG_HELLO);
	assert_int_equal(virtio_device_status(p.rig.device), RIG_HELLO);
	window(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_DFSELECT, 4, true, 1);
	assert_int_equal(window(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_DF, 4, false, 0), virtio_device_offered(p.rig.device) >> 32);
	/* Nowhere, unaligned, of no size, and with another length than the access. */
	window(&p, 0, 0, 4, true, 0);
	window(&p, common->bar, 0xfffffffc, 4, true, 0);
	window(&p, common->bar, common->offset + 1, 2, true, 0);
	window(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_STATUS, 3, true, 0);
	window(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_STATUS, 0, false, 0);
	window(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_STATUS, 0x80000000, true, 0);
	assert_int_equal(virtio_device_status(p.rig.device), RIG_HELLO);
	window(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_STATUS, 1, true, 0);
	assert_int_equal(virtio_device_status(p.rig.device), 0);
	pci_end(&p);
}

/* ---- interrupts ---- */

static void test_msix(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	bind_all(&p);
	pci_start_driver(&p, true);
	for (unsigned q = 0; q < RIG_QUEUES; q++) {
		pci_round(&p, q);
		assert_true(came(p.vectors[q + 1]));
		assert_false(came(p.vectors[RIG_QUEUES - q]) || came(p.vectors[0]));
	}
	p.rig.config[0] = 77;
	virtio_device_config_changed(p.rig.device);
	rig_idle(&p.rig);
	assert_true(came(p.vectors[0]));
	const struct place *device = &p.places[VIRTIO_PCI_CAP_DEVICE_CFG];
	uint64_t generation = common_get(&p, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	assert_int_equal(get(&p, device->bar, device->offset, 1), 77);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_CFGGENERATION, 1), generation);
	/* Section 4.1.4.5.1: also with MSI-X the status says that the configuration has changed, before the notification. */
	assert_int_equal(isr(&p) & VIRTIO_PCI_ISR_CONFIG, VIRTIO_PCI_ISR_CONFIG);
	assert_int_equal(isr(&p), 0);
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	common_set(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2, VIRTIO_MSI_NO_VECTOR);
	pci_round(&p, 0);
	for (unsigned i = 0; i <= RIG_QUEUES; i++)
		assert_false(came(p.vectors[i]));
	pci_end(&p);
}

static void unmask_intx(struct pci_rig *p)
{
	assert_int_equal(irq_mask(pci_function_irq(p->function), IRQ_INTX, 0, 1, false), 0);
	rig_idle(&p->rig);
}

static void test_intx(void **state)
{
	for (unsigned msix = 0; msix < 2; msix++) {
		struct pci_rig p;
		pci_begin(&p, *state != NULL, msix);
		assert_int_equal(p.msix != 0, msix);
		p.intx = bind_trigger(&p, IRQ_INTX, 0);
		pci_start_driver(&p, false);
		for (unsigned i = 0; i < 5; i++) {
			pci_round(&p, i % 2);
			assert_true(came(p.intx));
			assert_int_equal(config_get(&p, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
			assert_int_equal(isr(&p), 1);
			assert_int_equal(config_get(&p, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
			assert_int_equal(isr(&p), 0);
			unmask_intx(&p);
			assert_false(came(p.intx));
		}
		virtio_device_config_changed(p.rig.device);
		rig_idle(&p.rig);
		pci_round(&p, 0);
		assert_true(came(p.intx));
		assert_int_equal(isr(&p), 3);
		/* A reset takes the line down. */
		unmask_intx(&p);
		pci_round(&p, 0);
		common_set(&p, VIRTIO_PCI_COMMON_STATUS, 1, 0);
		assert_int_equal(config_get(&p, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
		assert_int_equal(isr(&p), 0);
		pci_end(&p);
	}
}

/* ---- events ---- */

/* Firmware switches bus master off and on: the driver's state is untouched and nothing is lost (the founding case of law 1). */
static void test_bus_master(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	bind_all(&p);
	pci_start_driver(&p, true);
	rig_hold(&p.rig, 0, 2);
	config_set(&p, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	rig_forbid(&p.rig);
	assert_int_equal(rig_end(&p.rig, 2), 0);
	atomic_store(&p.rig.mode, MODE_AT_ONCE);
	rig_add(&p.rig, 1);
	notify(&p, 1);
	rig_sync(&p.rig);
	rig_allow(&p.rig);
	assert_int_equal(status(&p), RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	config_set(&p, PCI_COMMAND, 2, COMMAND_ON);
	rig_wait_used(&p.rig, 0);
	rig_wait_used(&p.rig, 0);
	rig_wait_used(&p.rig, 1);
	rig_sync(&p.rig);
	assert_true(came(p.vectors[1]) && came(p.vectors[2]));
	pci_end(&p);
}

static uint32_t express(struct pci_rig *p)
{
	for (uint32_t at = config_get(p, PCI_CAPABILITY_LIST, 1); at; at = config_get(p, at + 1, 1))
		if (config_get(p, at, 1) == PCI_CAP_ID_EXP)
			return at;
	fail_msg("there is no PCI Express capability");
	return 0;
}

static void function_level_reset(struct pci_rig *p)
{
	config_set(p, express(p) + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
}

/* Those that reset the device are complete when they are answered, also with requests in the back end; bindings stay. */
static void test_resets(void **state)
{
	static const enum life_event events[] = { LIFE_EVENT_DEVICE_RESET, LIFE_EVENT_SECONDARY_BUS_RESET, LIFE_EVENT_VM_RESET, LIFE_EVENT_FLR };
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	bind_all(&p);
	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		pci_start_driver(&p, true);
		rig_hold(&p.rig, 0, 2);
		if (events[i] == LIFE_EVENT_FLR)
			function_level_reset(&p);
		else
			event(&p, events[i]);
		assert_int_equal(virtio_device_status(p.rig.device), 0);
		assert_int_equal(config_get(&p, PCI_COMMAND, 2), 0);
		config_set(&p, PCI_COMMAND, 2, COMMAND_ON);
		assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
		assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2), 0);
		assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
		assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
		assert_true(common_get(&p, VIRTIO_PCI_COMMON_Q_DESCLO, 8) == 0);
		/* Law 4, seen from here. */
		assert_int_equal(rig_conditions(&p.rig) & LIFE_FENCE, LIFE_FENCE);
		rig_end(&p.rig, 2);
		assert_int_equal(rig_conditions(&p.rig) & LIFE_FENCE, 0);
		pci_start_driver(&p, true);
		pci_round(&p, 0);
		assert_true(came(p.vectors[1]));
	}
	pci_end(&p);
}

/* One that nobody announced, and power states: virtio goes on where it was. */
static void test_what_does_not_reset(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	bind_all(&p);
	pci_start_driver(&p, true);
	rig_hold(&p.rig, 0, 1);
	event(&p, LIFE_EVENT_UNANNOUNCED_RESET);
	assert_int_equal(status(&p), RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(rig_end(&p.rig, 1), 0);
	rig_wait_used(&p.rig, 0);
	pci_round(&p, 0);
	assert_true(came(p.vectors[1]));
	atomic_store(&p.rig.mode, MODE_AT_ONCE);
	for (uint32_t at = config_get(&p, PCI_CAPABILITY_LIST, 1); at; at = config_get(&p, at + 1, 1)) {
		if (config_get(&p, at, 1) != PCI_CAP_ID_PM)
			continue;
		config_set(&p, at + PCI_PM_CTRL, 2, 3);
		assert_int_equal(rig_conditions(&p.rig), LIFE_NOT_D0);
		rig_add(&p.rig, 0);
		config_set(&p, at + PCI_PM_CTRL, 2, 0);
		assert_int_equal(config_get(&p, at + PCI_PM_CTRL, 2) & PCI_PM_CTRL_NO_SOFT_RESET, PCI_PM_CTRL_NO_SOFT_RESET);
	}
	rig_wait_used(&p.rig, 0);
	assert_int_equal(status(&p), RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	pci_end(&p);
}

static void test_queue_reset_register(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	bind_all(&p);
	pci_start_driver(&p, true);
	rig_hold(&p.rig, 0, 1);
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	common_set(&p, 58, 2, 1);
	assert_int_equal(common_get(&p, 58, 2), 1);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
	pci_round(&p, 1);
	rig_end(&p.rig, 1);
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	assert_int_equal(common_get(&p, 58, 2), 0);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	rig_set_up_queue(&p.rig, 0);
	common_set(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
	pci_round(&p, 0);
	assert_true(came(p.vectors[1]));
	pci_end(&p);
}

/* A queue_reset that was not negotiated does not exist (section 4.1.4.3). */
static void test_queue_reset_not_negotiated(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	pci_start_driver(&p, true);
	common_set(&p, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	common_set(&p, VIRTIO_PCI_COMMON_STATUS, 1, RIG_HELLO);
	common_set(&p, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	common_set(&p, VIRTIO_PCI_COMMON_GF, 4, 1);
	common_set(&p, VIRTIO_PCI_COMMON_STATUS, 1, RIG_READY);
	rig_set_up_queue(&p.rig, 0);
	common_set(&p, VIRTIO_PCI_COMMON_STATUS, 1, RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	common_set(&p, 58, 2, 1);
	assert_int_equal(common_get(&p, 58, 2), 0);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	pci_round(&p, 0);
	pci_end(&p);
}

/* The client goes with requests in a stuck back end; the next one finds a function that is as new, but for the fence. */
static void test_next_client(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	bind_all(&p);
	pci_start_driver(&p, true);
	rig_hold(&p.rig, 0, 2);
	event(&p, LIFE_EVENT_DISCONNECT);
	assert_int_equal(life_state(p.rig.life), LIFE_STATE_FREE);
	for (unsigned i = 0; i <= RIG_QUEUES; i++)
		close(p.vectors[i]);
	event(&p, LIFE_EVENT_CONNECT);
	rig_map(&p.rig, RIG_BASE, RIG_SIZE, false);
	bind_all(&p);
	rig_end(&p.rig, 2);
	pci_start_driver(&p, true);
	pci_round(&p, 0);
	assert_true(came(p.vectors[1]));
	pci_end(&p);
}

static void test_io_fds(void **state)
{
	struct pci_rig p;
	struct pci_io_fd fds[RIG_QUEUES + 1];
	const uint64_t one = 1;
	pci_begin(&p, *state != NULL, true);
	const struct place *place = &p.places[VIRTIO_PCI_CAP_NOTIFY_CFG];
	assert_int_equal(pci_function_io_fds(p.function, place->bar, fds, 1), 1);
	assert_int_equal(pci_function_io_fds(p.function, place->bar, fds, ARRAY_SIZE(fds)), RIG_QUEUES);
	assert_int_equal(pci_function_io_fds(p.function, 1, fds, ARRAY_SIZE(fds)), 0);
	pci_start_driver(&p, true);
	for (unsigned q = 0; q < RIG_QUEUES; q++) {
		assert_int_equal(fds[q].offset, place->offset + 4 * q);
		rig_add(&p.rig, q);
		assert_int_equal(write(fds[q].fd, &one, sizeof one), sizeof one);
		rig_wait_used(&p.rig, q);
	}
	pci_end(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_layout), RIG_BOTH(test_common), RIG_BOTH(test_window), RIG_BOTH(test_msix), RIG_BOTH(test_intx),
		RIG_BOTH(test_bus_master), RIG_BOTH(test_resets), RIG_BOTH(test_what_does_not_reset), RIG_BOTH(test_queue_reset_register),
		RIG_BOTH(test_queue_reset_not_negotiated), RIG_BOTH(test_next_client), RIG_BOTH(test_io_fds),
	};
	return cmocka_run_group_tests_name("virtio over PCI", tests, NULL, NULL);
}

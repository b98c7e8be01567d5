// SPDX-License-Identifier: BSD-2-Clause
/*
 * A PCI function that is unplugged, by asking or by force, removed under its client, and plugged again; and the faults that are injected into one: bus master that changes by itself,
 * interrupts that are lost, mappings that are withdrawn.
 */
#include <stdio.h>
#include <sys/mman.h>

#include "pci_rig.h"

#define MSIX_CONTROL (rig.function->msix_at + PCI_MSIX_FLAGS)
#define COMMAND_ON (PCI_COMMAND_MEMORY | PCI_COMMAND_IO | PCI_COMMAND_MASTER)

static struct life *life_of(void)
{
	return pci_function_life(rig.function);
}

static int setup(void **state)
{
	rig_setup(state);
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	config_write(PCI_COMMAND, 2, COMMAND_ON);
	config_write(MSIX_CONTROL, 2, PCI_MSIX_FLAGS_ENABLE);
	return 0;
}

static void check_silent(unsigned bar, bool silent)
{
	uint8_t data[4] = { 1, 2, 3, 4 };
	unsigned before = rig.accesses;
	assert_int_equal(rig_access(bar, 0, data, 4, true), 0);
	assert_int_equal(rig_access(bar, 0, data, 4, false), 0);
	assert_int_equal(rig.accesses, silent ? before : before + 2);
	assert_int_equal(load_le32(data), silent ? ~0u : 0x04030201u);
}

static uint64_t mappings(void)
{
	struct dma_stats stats;
	dma_space_stats(pci_function_dma(rig.function), &stats);
	return stats.mappings;
}

static void map_something(void)
{
	assert_int_equal(dma_space_map(pci_function_dma(rig.function), 0x10000, 0x4000, DMA_READ | DMA_WRITE, -1, 0,
				       rig.memory, NULL), 0);
	struct dma_commit commit = { 0 };
	assert_true(dma_space_commit(pci_function_dma(rig.function), &commit, NULL));
}

static void test_unplug(void **state)
{
	(void)state;
	assert_int_equal(rig_event(LIFE_EVENT_UNPLUG_ASK), 0);
	assert_int_equal(life_state(life_of()), LIFE_STATE_ASKED);
	check_silent(0, false); /* an access during unplug is answered */
	assert_int_equal(rig_event(LIFE_EVENT_DEVICE_RESET), 0);
	assert_int_equal(life_state(life_of()), LIFE_STATE_ASKED);
	map_something();
	assert_int_equal(rig_event(LIFE_EVENT_UNPLUG_FORCE), 0);
	assert_int_equal(life_state(life_of()), LIFE_STATE_GONE);
	assert_true(life_conditions(life_of()) & LIFE_DETACHING);
	assert_int_equal(mappings(), 0);
	assert_int_equal(rig_event(LIFE_EVENT_UNPLUG_FORCE), 0);
	/* A connection that is noticed to have ended only now is no mistake of anybody's. */
	assert_int_equal(rig_event(LIFE_EVENT_DISCONNECT), 0);
	assert_int_equal(life_state(life_of()), LIFE_STATE_GONE);
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), -EBUSY);
	assert_int_equal(rig_event(LIFE_EVENT_PLUG), 0);
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	assert_int_equal(life_state(life_of()), LIFE_STATE_ATTACHED);
	assert_false(life_conditions(life_of()) & LIFE_DETACHING);
	check_silent(0, true); /* and what the last owner had is gone */
}

static void test_unplug_tells_the_client(void **state)
{
	(void)state;
	int fd = rig_bind(IRQ_REQ, 0);
	assert_int_equal(rig_event(LIFE_EVENT_UNPLUG_ASK), 0);
	assert_int_equal(rig_come(fd), 1);
	/* Asked once more, told once more. */
	assert_int_equal(rig_event(LIFE_EVENT_UNPLUG_ASK), 0);
	assert_int_equal(rig_come(fd), 1);
	assert_int_equal(rig_event(LIFE_EVENT_DISCONNECT), 0);
	assert_int_equal(life_state(life_of()), LIFE_STATE_GONE);
	assert_int_equal(rig_event(LIFE_EVENT_PLUG), 0);
	/* With nobody there, asking is all. */
	assert_int_equal(rig_event(LIFE_EVENT_UNPLUG_ASK), 0);
	assert_int_equal(life_state(life_of()), LIFE_STATE_GONE);
	close(fd);
}

static void test_removal(void **state)
{
	(void)state;
	int err = rig_bind(IRQ_ERR, 0), req = rig_bind(IRQ_REQ, 0);
	map_something();
	config_write(PCI_COMMAND, 2, COMMAND_ON);
	assert_int_equal(rig_event(LIFE_EVENT_SURPRISE_REMOVAL), 0);
	assert_int_equal(life_state(life_of()), LIFE_STATE_GONE);
	assert_int_equal(life_count(life_of(), LIFE_EVENT_SURPRISE_REMOVAL), 1);
	assert_true(life_conditions(life_of()) & LIFE_DETACHING);
	assert_int_equal(mappings(), 0);
	/* The client was asked nothing and told nothing; it is still there and is answered. */
	assert_int_equal(rig_come(err), 0);
	assert_int_equal(rig_come(req), 0);
	assert_int_equal(config_read(PCI_VENDOR_ID, 4), 0xffffffff);
	config_write(PCI_COMMAND, 2, COMMAND_ON);
	assert_int_equal(pci_function_config_peek(rig.function, PCI_COMMAND, 2), 0);
	assert_int_equal(rig_event(LIFE_EVENT_PLUG), -EBUSY);
	/* What it leaves behind goes with it. */
	map_something();
	assert_int_equal(rig_event(LIFE_EVENT_DISCONNECT), 0);
	assert_int_equal(life_state(life_of()), LIFE_STATE_GONE);
	assert_int_equal(mappings(), 0);
	assert_int_equal(rig_event(LIFE_EVENT_PLUG), 0);
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	assert_int_not_equal(config_read(PCI_VENDOR_ID, 4), 0xffffffff);
	close(err);
	close(req);
}

/* ---- injected faults ---- */

static void test_bus_master_by_itself(void **state)
{
	(void)state;
	pci_inject_bus_master(rig.function, false);
	assert_int_equal(life_conditions(life_of()), LIFE_NO_BUS_MASTER);
	assert_int_equal(config_read(PCI_COMMAND, 2), COMMAND_ON & ~PCI_COMMAND_MASTER);
	assert_false(irq_conditions(pci_function_irq(rig.function)) & IRQ_BUS_MASTER);
	pci_inject_bus_master(rig.function, true);
	assert_int_equal(life_conditions(life_of()), 0);
	assert_int_equal(config_read(PCI_COMMAND, 2), COMMAND_ON);
}

static void test_lost_table(void **state)
{
	(void)state;
	int fd = rig_bind(IRQ_MSIX, 1);
	pci_inject_lost_table(rig.function);
	irq_raise(pci_function_irq(rig.function), 1);
	assert_int_equal(rig_come(fd), 1);
	close(fd);
}

static void test_lost_interrupts(void **state)
{
	struct irq_set *irq = pci_function_irq(rig.function);
	(void)state;
	int fd = rig_bind(IRQ_MSIX, 1), other = rig_bind(IRQ_MSIX, 2);
	assert_int_equal(irq_lose(irq, 1, 2), 0);
	/* They are lost one by one, not pending, and other vectors lose nothing. */
	irq_raise(irq, 1);
	irq_raise(irq, 2);
	turn_idle(rig.owner);
	assert_int_equal(rig_come(fd), 0);
	assert_int_equal(rig_come(other), 1);
	irq_raise(irq, 1);
	/* One more before the owner has looked: that one is owed, and comes. */
	irq_raise(irq, 1);
	assert_int_equal(rig_come(fd), 0);
	turn_idle(rig.owner);
	assert_int_equal(rig_come(fd), 1);
	assert_int_equal(irq_lost(irq, IRQ_MSIX, 1), 2);
	irq_raise(irq, 1);
	assert_int_equal(rig_come(fd), 1);
	/* What is raised while it cannot be delivered is pending, and is lost when it could be. */
	assert_int_equal(irq_lose(irq, 1, 1), 0);
	pci_inject_bus_master(rig.function, false);
	irq_raise(irq, 1);
	pci_inject_bus_master(rig.function, true);
	turn_idle(rig.owner);
	assert_int_equal(rig_come(fd), 0);
	assert_int_equal(irq_lost(irq, IRQ_MSIX, 1), 3);
	irq_raise(irq, 1);
	assert_int_equal(rig_come(fd), 1);
	assert_int_equal(irq_lose(irq, RIG_VECTORS, 1), -EINVAL);
	config_write(MSIX_CONTROL, 2, 0);
	assert_int_equal(irq_lose(irq, 1, 1), -ENOTSUP);
	close(fd);
	close(other);
}

/* ---- mappings ---- */

static struct dma_commit commit;

static void ignore(struct dma_commit *done)
{
	(void)done;
}

static void publish(void)
{
	if (!dma_space_commit(pci_function_dma(rig.function), &commit, ignore))
		turn_idle(rig.owner);
}

static int byte_at(uint64_t iova)
{
	struct dma_view view;
	uint8_t byte;
	dma_view_init(&view, pci_function_dma(rig.function), NULL, NULL, false);
	dma_view_begin(&view);
	int result = dma_read(&view, iova, &byte, 1);
	return result < 0 ? result : byte;
}

static struct dma_stats stats_now(void)
{
	struct dma_stats stats;
	dma_space_stats(pci_function_dma(rig.function), &stats);
	return stats;
}

static void test_withdrawn_mappings(void **state)
{
	struct dma_space *space = pci_function_dma(rig.function);
	uint64_t bytes;
	(void)state;
	int fd = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, 1 << 16), 0);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(pwrite(fd, &(char){ (char)('a' + i) }, 1, i * 4096), 1);
	assert_int_equal(dma_space_map(space, 0x10000, 1 << 16, DMA_READ | DMA_WRITE, fd, 0, NULL, NULL), 0);
	close(fd);
	publish();

	/* A piece in the middle; then all, which leaves the piece where it is. */
	assert_int_equal(dma_space_withdraw(space, 0x12000, 0x2000, &bytes), 0);
	publish();
	assert_int_equal(bytes, 0x2000);
	assert_int_equal(byte_at(0x12000), -EFAULT);
	assert_int_equal(byte_at(0x14000), 'e');
	assert_int_equal(dma_space_withdraw(space, 0, 1 << 20, &bytes), 0);
	publish();
	assert_int_equal(bytes, 0xe000);
	assert_int_equal(stats_now().mappings, 0);
	assert_int_equal(stats_now().files, 1);
	assert_int_equal(byte_at(0x14000), -EFAULT);
	assert_int_equal(dma_space_give_back(space), 1 << 16);
	publish();
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(byte_at(0x10000 + i * 4096), 'a' + i);
	assert_int_equal(stats_now().mapped_bytes, 1 << 16);

	/* What is unmapped meanwhile stays away, and its file goes. */
	assert_int_equal(dma_space_withdraw(space, 0x10000, 0x1000, &bytes), 0);
	publish();
	assert_int_equal(dma_space_unmap(space, 0x10000, 1 << 16, NULL), 0);
	publish();
	assert_int_equal(stats_now().files, 0);
	assert_int_equal(dma_space_give_back(space), 0);
	assert_int_equal(dma_space_withdraw(space, 0x10000, 0, &bytes), -EINVAL);
	assert_int_equal(dma_space_withdraw(space, UINT64_MAX, 2, &bytes), -EINVAL);
	assert_int_equal(dma_space_withdraw(space, 0, 4096, &bytes), 0); /* nothing there */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_unplug),
		TEST(test_unplug_tells_the_client),
		TEST(test_removal),
		TEST(test_bus_master_by_itself),
		TEST(test_lost_table),
		TEST(test_lost_interrupts),
		TEST(test_withdrawn_mappings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

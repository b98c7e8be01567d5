// SPDX-License-Identifier: BSD-2-Clause
/*
 * Accesses to the registers of a virtio function, of every width and at every place: the common configuration field by field and across fields, whole accesses (law 6),
 * and where there is nothing.
 */
#include "virtio_pci_image.h"

/* A read of any length at any place is the piece of the whole that it says. */
static void test_reads(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	fill_in(&p);
	struct image whole = look(&p);
	const struct place *place = &p.places[VIRTIO_PCI_CAP_COMMON_CFG];
	for (uint32_t offset = 0; offset < COMMON_SIZE + 8; offset++) {
		for (uint32_t length = 1; length <= COMMON_SIZE + 4; length++) {
			uint8_t data[COMMON_SIZE + 4], expected[COMMON_SIZE + 4] = { 0 };
			memset(data, 0xa5, sizeof data);
			for (uint32_t i = 0; i < length && offset + i < COMMON_SIZE; i++)
				expected[i] = whole.bytes[offset + i];
			assert_int_equal(access_function(&p, place->bar, place->offset + offset, data, length, false), 0);
			assert_memory_equal(data, expected, length);
		}
	}
	pci_end(&p);
}

static bool covers_a_field(uint32_t offset, uint32_t length)
{
	for (size_t i = 0; i < ARRAY_SIZE(common_fields); i++) {
		const struct common_field *field = &common_fields[i];
		if (field->kind == WRITABLE && field->offset >= offset && field->offset + field->size <= offset + length)
			return true;
	}
	return false;
}

/* A write that covers no field as a whole changes nothing: parts of one, across two, and what is read-only. */
static void test_writes_of_parts(void **state)
{
	static const uint8_t patterns[] = { 0x00, 0x01, 0xff };
	struct pci_rig p;
	unsigned tried = 0;
	pci_begin(&p, *state != NULL, true);
	fill_in(&p);
	struct all before = look_at_all(&p);
	const struct place *place = &p.places[VIRTIO_PCI_CAP_COMMON_CFG];
	for (uint32_t offset = 0; offset < COMMON_SIZE + 4; offset++) {
		for (uint32_t length = 1; length <= 8; length++) {
			if (covers_a_field(offset, length))
				continue;
			for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
				uint8_t data[8];
				memset(data, patterns[i], sizeof data);
				assert_int_equal(access_function(&p, place->bar, place->offset + offset, data, length, true), 0);
				tried++;
			}
			struct image now = look(&p), then = before.queues[1];
			assert_memory_equal(&now, &then, sizeof now);
		}
	}
	assert_true(tried > 300);
	assert_unchanged(&p, &before);
	pci_end(&p);
}

/* Each field by its own width; those of 64 bits as halves in either order, and whole. */
static void test_writes(void **state)
{
	static const uint32_t areas[] = { VIRTIO_PCI_COMMON_Q_DESCLO, VIRTIO_PCI_COMMON_Q_AVAILLO, VIRTIO_PCI_COMMON_Q_USEDLO };
	const uint64_t value = UINT64_C(0xfedcba9876543210);
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	fill_in(&p);
	for (size_t i = 0; i < ARRAY_SIZE(areas); i++) {
		struct image before = look(&p);
		common_set(&p, areas[i] + 4, 4, value >> 32);
		memcpy(before.bytes + areas[i] + 4, (uint8_t[]){ 0x98, 0xba, 0xdc, 0xfe }, 4);
		struct image now = look(&p);
		assert_memory_equal(&now, &before, sizeof now); /* the half, and nothing else */
		common_set(&p, areas[i], 4, (uint32_t)value);
		assert_true(common_get(&p, areas[i], 8) == value);
		common_set(&p, areas[i], 8, ~value);
		assert_true(common_get(&p, areas[i], 8) == ~value);
		common_set(&p, areas[i], 4, 0);
		common_set(&p, areas[i] + 4, 4, 0);
		assert_true(common_get(&p, areas[i], 8) == 0);
	}
	/* The selections are of 32 and 16 bits, and say what they were told. */
	for (unsigned i = 0; i < 2; i++) {
		uint32_t select = i ? VIRTIO_PCI_COMMON_GFSELECT : VIRTIO_PCI_COMMON_DFSELECT;
		common_set(&p, select, 4, 0xdeadbeef);
		assert_int_equal(common_get(&p, select, 4), 0xdeadbeef);
		assert_int_equal(common_get(&p, select + 4, 4), 0);
	}
	uint64_t features = virtio_device_features(p.rig.device);
	common_set(&p, VIRTIO_PCI_COMMON_GF, 4, 0xffffffff); /* of a word that does not exist */
	assert_true(virtio_device_features(p.rig.device) == features);
	common_set(&p, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
	common_set(&p, VIRTIO_PCI_COMMON_GF, 4, 0x12345678);
	assert_true(virtio_device_features(p.rig.device) == ((features & ~UINT64_C(0xffffffff)) | 0x12345678));
	/* The queues' selection with the size that follows, in one: the size is that of the queue that is selected with it. */
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 4, 0 | 32u << 16);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_SIZE, 2), 32);
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
	pci_end(&p);
}

/* A queue that does not exist has nothing, takes nothing, and no other queue takes it for it. */
static void test_no_such_queue(void **state)
{
	static const uint16_t numbers[] = { RIG_QUEUES, RIG_QUEUES + 1, VIRTIO_QUEUES_MAX, 0x100, 0x8000, 0xffff };
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	fill_in(&p);
	struct all before = look_at_all(&p);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, numbers[i]);
		assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2), numbers[i]);
		for (size_t f = 0; f < ARRAY_SIZE(common_fields); f++) {
			const struct common_field *field = &common_fields[f];
			if (field->offset < VIRTIO_PCI_COMMON_Q_SIZE)
				continue;
			uint64_t nothing = field->offset == VIRTIO_PCI_COMMON_Q_MSIX ? VIRTIO_MSI_NO_VECTOR : 0;
			common_set(&p, field->offset, field->size, 1);
			assert_true(common_get(&p, field->offset, field->size) == nothing);
		}
	}
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	assert_unchanged(&p, &before);
	pci_end(&p);
}

static void test_vectors(void **state)
{
	static const uint32_t places[] = { VIRTIO_PCI_COMMON_MSIX, VIRTIO_PCI_COMMON_Q_MSIX };
	for (unsigned msix = 0; msix < 2; msix++) {
		struct pci_rig p;
		pci_begin(&p, *state != NULL, msix);
		fill_in(&p);
		for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
			for (uint32_t vector = 0; vector < 0x10000; vector += vector < 4 ? 1 : 0x7ff) {
				uint32_t expected = msix && vector <= RIG_QUEUES ? vector : VIRTIO_MSI_NO_VECTOR;
				common_set(&p, places[i], 2, vector);
				assert_int_equal(common_get(&p, places[i], 2), expected);
			}
			common_set(&p, places[i], 2, 1);
			common_set(&p, places[i], 2, VIRTIO_MSI_NO_VECTOR);
			assert_int_equal(common_get(&p, places[i], 2), VIRTIO_MSI_NO_VECTOR);
		}
		pci_end(&p);
	}
}

/* What is in the way of an enabled queue: its size and addresses are fixed, its vector is not. */
static void test_enabled(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	bind_all(&p);
	pci_start_driver(&p, true);
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	struct all before = look_at_all(&p);
	static const uint16_t not_one[] = { 0, 2, 3, 0x100, 0x101, 0xffff };
	for (size_t i = 0; i < ARRAY_SIZE(not_one); i++) {
		common_set(&p, VIRTIO_PCI_COMMON_Q_ENABLE, 2, not_one[i]);
		common_set(&p, QUEUE_RESET, 2, not_one[i]);
	}
	common_set(&p, VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
	common_set(&p, VIRTIO_PCI_COMMON_Q_DESCLO, 8, 4096);
	common_set(&p, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, 4096);
	common_set(&p, VIRTIO_PCI_COMMON_Q_USEDLO, 8, 4096);
	common_set(&p, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	common_set(&p, VIRTIO_PCI_COMMON_GF, 4, 0); /* after FEATURES_OK */
	assert_unchanged(&p, &before);
	pci_round(&p, 1);
	assert_true(came(p.vectors[2]));
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	common_set(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2, 0);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0);
	pci_round(&p, 1);
	assert_true(came(p.vectors[0]));
	assert_false(came(p.vectors[2]));
	pci_end(&p);
}

/* ---- law 6 ---- */

static struct {
	unsigned reads, writes;
	uint32_t offset, length;
} seen;

static void see_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	seen.reads++;
	seen.offset = offset;
	seen.length = length;
	rig_config_read(device, offset, data, length);
}

static void see_write(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
	seen.writes++;
	seen.offset = offset;
	seen.length = length;
	rig_config_write(device, offset, data, length);
}

/* An access reaches the class once and whole; and one over several registers is one: what it covers as a whole is not halved on the way. */
static void test_whole_accesses(void **state)
{
	struct pci_rig p;
	pci_begin(&p, *state != NULL, true);
	p.rig.class.config_read = see_read;
	p.rig.class.config_write = see_write;
	fill_in(&p);
	const struct place *device = &p.places[VIRTIO_PCI_CAP_DEVICE_CFG];
	for (uint32_t length = 1; length <= 8; length++) {
		for (uint32_t offset = 0; offset + length <= 8; offset++) {
			uint64_t mask = UINT64_MAX >> (64 - 8 * length), value = UINT64_C(0x8877665544332211) & mask;
			memset(&seen, 0, sizeof seen);
			set(&p, device->bar, device->offset + offset, length, value);
			assert_int_equal(seen.writes, 1);
			assert_true(seen.offset == offset && seen.length == length);
			assert_true(get(&p, device->bar, device->offset + offset, length) == value);
			assert_int_equal(seen.reads, 1);
			assert_true(seen.offset == offset && seen.length == length);
		}
	}
	/* From the middle of the number of queues on: the selection of the queue lies whole in it. */
	uint8_t data[5] = { 0xff, RIG_HELLO, 0xff, 0, 0 };
	const struct place *common = &p.places[VIRTIO_PCI_CAP_COMMON_CFG];
	assert_int_equal(access_function(&p, common->bar, common->offset + VIRTIO_PCI_COMMON_NUMQ + 1, data, sizeof data, true), 0);
	assert_int_equal(common_get(&p, VIRTIO_PCI_COMMON_Q_SELECT, 2), 0);
	pci_end(&p);
}

/* A read always answers: where there is nothing, no byte of the caller's own comes back. */
static void test_nothing_there(void **state)
{
	static const struct {
		uint32_t bar, offset, length;
	} holes[] = { { 4, 0x0ffc, 8 }, { 4, 0x1fff, 2 }, { 4, 0x2ff0, 64 }, { 4, 0x0000, 0x2000 / 2 + 1 }, { 1, 0x400, 4 }, { 1, 0xffc, 4 } };
	struct pci_rig p;
	static uint8_t data[2][0x2000];
	pci_begin(&p, *state != NULL, true);
	fill_in(&p);
	struct all before = look_at_all(&p);
	for (size_t i = 0; i < ARRAY_SIZE(holes); i++) {
		int result[2];
		for (unsigned n = 0; n < 2; n++) {
			memset(data[n], n ? 0x5a : 0xa5, sizeof data[n]);
			result[n] = access_function(&p, holes[i].bar, holes[i].offset, data[n], holes[i].length, false);
		}
		assert_int_equal(result[0], result[1]);
		assert_memory_equal(data[0], data[1], min_of(holes[i].length, PCI_ACCESS_MAX));
		access_function(&p, holes[i].bar, holes[i].offset, data[0], holes[i].length, true);
	}
	assert_unchanged(&p, &before);
	pci_end(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_reads), RIG_BOTH(test_writes_of_parts), RIG_BOTH(test_writes), RIG_BOTH(test_no_such_queue), RIG_BOTH(test_vectors),
		RIG_BOTH(test_enabled), RIG_BOTH(test_whole_accesses), RIG_BOTH(test_nothing_there),
	};
	return cmocka_run_group_tests_name("accesses to virtio over PCI", tests, NULL, NULL);
}

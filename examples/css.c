// SPDX-License-Identifier: BSD-2-Clause
/*
 * A channel subsystem in a monitor of one thread: makes a disk in memory a channel device, plays the guest that finds and starts it (virtio over channel I/O), writes a sector and reads it back with an
 * adapter interruption for each, and takes the device away again. An emulator does the same from its handlers of the channel instructions.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pintle/pintle.h>

#define GUEST_MEMORY (1u << 20)
/* Where the guest of this example keeps its things. */
#define PROGRAM 0x1000u
#define BUFFER 0x2000u
#define INDICATORS 0x3000u /* summary byte, then the queue's bit */
#define DESCRIPTORS 0x4000u
#define AVAILABLE 0x5000u
#define USED 0x6000u
#define REQUEST 0x7000u /* header, status */
#define SECTOR 0x8000u
#define QUEUE_SIZE 8
#define ADAPTER_ISC 2

struct monitor {
	struct pintle_loop *loop;
	struct pintle_css *css;
	uint8_t *memory;
	uint32_t disk; /* its subsystem-identification word */
	uint8_t pending;
	int condition; /* of an instruction that is answered later */
	unsigned interruptions, requests;
	bool gone;
};

static void fail(const char *what)
{
	fprintf(stderr, "css: %s\n", what);
	exit(1);
}

/* Channel programs are big-endian; what virtio shares with its driver is little-endian. */
static void put(struct monitor *m, uint32_t at, uint64_t value, unsigned bytes)
{
	for (unsigned i = bytes; i--; value >>= 8)
		m->memory[at + i] = (uint8_t)value;
}

static void put_little(struct monitor *m, uint32_t at, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++, value >>= 8)
		m->memory[at + i] = (uint8_t)value;
}

/* ---- what the library calls, from the loop ---- */

static void io_pending(void *context, uint8_t isc_mask)
{
	((struct monitor *)context)->pending = isc_mask; /* a real one wakes a processor whose mask allows it */
}

static void answered(void *context, int condition)
{
	((struct monitor *)context)->condition = condition;
}

static void gone(void *context)
{
	((struct monitor *)context)->gone = true;
}

/* ---- the guest: each of these would be instructions, intercepted ---- */

static void enable(struct monitor *m, bool on)
{
	uint8_t schib[PINTLE_CSS_SCHIB_SIZE];
	if (pintle_css_stsch(m->css, m->disk, schib) != 0)
		fail("STORE SUBCHANNEL found nothing");
	schib[5] = (uint8_t)(on ? schib[5] | 0x80 : schib[5] & ~0x80);
	m->condition = pintle_css_msch(m->css, m->disk, schib, answered, m);
	/* The processor waits; the loop does not. */
	while (m->condition == PINTLE_CSS_PENDING)
		pintle_loop_turn(m->loop, -1);
	if (m->condition != 0)
		fail("MODIFY SUBCHANNEL was refused");
}

static void channel_program(struct monitor *m, uint8_t code, uint16_t count)
{
	struct pintle_css_interruption interruption;
	uint8_t irb[PINTLE_CSS_IRB_SIZE], orb[PINTLE_CSS_ORB_SIZE] = { 0, 0, 0, 1, 0x00, 0x80, 0xff, 0x00, 0, 0, PROGRAM >> 8, 0 };

	put(m, PROGRAM, code, 1);
	put(m, PROGRAM + 1, 0, 1);
	put(m, PROGRAM + 2, count, 2);
	put(m, PROGRAM + 4, BUFFER, 4);
	if (pintle_css_ssch(m->css, m->disk, orb) != 0)
		fail("START SUBCHANNEL was refused");
	/* The guest runs on until the interruption comes. */
	while (!pintle_css_take_interruption(m->css, 0xff, &interruption))
		pintle_loop_turn(m->loop, -1);
	if (pintle_css_tsch(m->css, m->disk, irb) != 0 || irb[8] != 0x0c || irb[9] != 0)
		fail("a channel program did not end well");
}

static void write_status(struct monitor *m, uint8_t status)
{
	put(m, BUFFER, status, 1);
	channel_program(m, 0x31, 1);
}

static void start_disk(struct monitor *m)
{
	channel_program(m, 0xe4, 7); /* SENSE ID */
	printf("control unit %02x%02x model %u\n", m->memory[BUFFER + 1], m->memory[BUFFER + 2], m->memory[BUFFER + 3]);
	put(m, BUFFER, 1, 2); /* SET_VIRTIO_REV 1 */
	put(m, BUFFER + 2, 0, 2);
	channel_program(m, 0x83, 4);
	channel_program(m, 0x33, 0); /* VDEV_RESET */
	write_status(m, 3);
	put_little(m, BUFFER, 1, 4); /* WRITE_FEAT: VERSION_1 alone */
	put(m, BUFFER + 4, 1, 1);
	channel_program(m, 0x11, 5);
	write_status(m, 11);
	channel_program(m, 0x22, 8); /* READ_CONF */
	printf("%u sectors\n", (unsigned)(m->memory[BUFFER] | m->memory[BUFFER + 1] << 8));
	put(m, BUFFER, DESCRIPTORS, 8); /* SET_VQ */
	put(m, BUFFER + 8, 0, 6);
	put(m, BUFFER + 14, QUEUE_SIZE, 2);
	put(m, BUFFER + 16, AVAILABLE, 8);
	put(m, BUFFER + 24, USED, 8);
	channel_program(m, 0x13, 32);
	put(m, BUFFER, INDICATORS, 8); /* SET_IND_ADAPTER */
	put(m, BUFFER + 8, INDICATORS + 8, 8);
	put(m, BUFFER + 16, 0, 8);
	put(m, BUFFER + 24, ADAPTER_ISC, 1);
	channel_program(m, 0x73, 25);
	write_status(m, 15);
}

static void descriptor(struct monitor *m, unsigned n, uint32_t address, uint32_t length, unsigned flags)
{
	put_little(m, DESCRIPTORS + 16 * n, address, 8);
	put_little(m, DESCRIPTORS + 16 * n + 8, length, 4);
	put_little(m, DESCRIPTORS + 16 * n + 12, flags, 2);
	put_little(m, DESCRIPTORS + 16 * n + 14, n + 1, 2);
}

static void request(struct monitor *m, bool write)
{
	struct pintle_css_interruption interruption;

	put_little(m, REQUEST, write ? 1 : 0, 8);
	put_little(m, REQUEST + 8, 0, 8);
	m->memory[REQUEST + 16] = 0xff;
	descriptor(m, 0, REQUEST, 16, 1);
	descriptor(m, 1, SECTOR, 512, write ? 1 : 3);
	descriptor(m, 2, REQUEST + 16, 1, 2);
	put_little(m, AVAILABLE + 4 + 2 * (m->requests % QUEUE_SIZE), 0, 2); /* the chain begins with descriptor 0 */
	/* The index last, in one store: the disk's thread may be looking. */
	m->requests++;
	uint8_t index[2] = { (uint8_t)m->requests, (uint8_t)(m->requests >> 8) };
	uint16_t whole;
	memcpy(&whole, index, sizeof whole);
	__atomic_store_n((uint16_t *)(void *)(m->memory + AVAILABLE + 2), whole, __ATOMIC_RELEASE);
	if (pintle_css_diagnose_500(m->css, 3, m->disk, 0, 0) < 0)
		fail("DIAGNOSE 0x500 was refused");
	while (!pintle_css_take_interruption(m->css, 0x80 >> ADAPTER_ISC, &interruption))
		pintle_loop_turn(m->loop, -1);
	m->interruptions++;
	__atomic_store_n(m->memory + INDICATORS, 0, __ATOMIC_SEQ_CST);
	if (m->memory[REQUEST + 16] != 0)
		fail("the disk reports an error");
}

int main(void)
{
	static const struct pintle_css_ops ops = { .io_pending = io_pending };
	struct monitor m = { .memory = calloc(1, GUEST_MEMORY) };
	struct pintle_guest_memory memory = { .host = m.memory, .size = GUEST_MEMORY };
	struct pintle_css_options options = { .name = "css", .memory = &memory, .ops = &ops, .context = &m };
	struct pintle_blk_options blk = { .name = "disk", .size = 1 << 20 };
	struct pintle_css_place place = { .device_number = 0x0b10, .subchannel = PINTLE_CSS_ANY };
	struct pintle_channel_device *disk = NULL;
	struct pintle_error err = { 0 };

	if (!m.memory || pintle_loop_create(&m.loop, "monitor", &err) < 0 || pintle_css_create(&m.css, m.loop, &options, &err) < 0 ||
	    pintle_blk_create_ccw(&disk, m.loop, &blk, &err) < 0 || pintle_css_add(m.css, disk, &place, &m.disk, &err) < 0)
		fail(err.text);
	enable(&m, true);
	start_disk(&m);
	memset(m.memory + SECTOR, 0x5a, 512);
	request(&m, true);
	memset(m.memory + SECTOR, 0, 512);
	request(&m, false);
	if (m.memory[SECTOR] != 0x5a || m.memory[SECTOR + 511] != 0x5a)
		fail("the sector came back different");
	printf("a sector written and read, %u adapter interruptions\n", m.interruptions);
	enable(&m, false);
	/* The operator takes it away, by force: done when nothing of the guest is with it any more. */
	if (pintle_css_remove(m.css, disk, true, gone, &m) < 0)
		fail("cannot remove the disk");
	while (!m.gone)
		pintle_loop_turn(m.loop, -1);
	printf("gone\n");
	pintle_channel_device_destroy(disk);
	pintle_css_destroy(m.css);
	pintle_loop_destroy(m.loop);
	free(m.memory);
	return 0;
}

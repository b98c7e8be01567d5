// SPDX-License-Identifier: BSD-2-Clause
/*
 * Interrupts agree (law 2): when a vector is delivered, when it is pending, what a reset takes and what it leaves; hostile triggers; and raising
 * from another thread while the owner masks and unmasks.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "irq/event.h"
#include "race_time.h"

#define VECTORS 70u
#include "irq_rig.h"

#define MSI_ON (IRQ_BUS_MASTER | IRQ_D0 | IRQ_MSI_ENABLED | IRQ_INTX_ENABLED)

static bool is_pending(enum irq_kind kind, uint32_t vector)
{
	struct irq_vector_info info;
	assert_int_equal(irq_vector_info(set, kind, vector, &info), 0);
	return info.pending;
}

static bool differs(uint32_t vector)
{
	struct irq_vector_info info;
	assert_int_equal(irq_vector_info(set, IRQ_MSIX, vector, &info), 0);
	return info.held_differs;
}

static void write32(uint64_t offset, uint32_t value)
{
	uint8_t data[4];
	store_le32(data, value);
	irq_table_write(set, offset, data, sizeof data);
}

static uint32_t read32(uint64_t offset)
{
	uint8_t data[4];
	irq_table_read(set, offset, data, sizeof data);
	return load_le32(data);
}

static void program(uint32_t vector, uint32_t control)
{
	write32(16 * vector, 0xfee00000);
	write32(16 * vector + 4, 1);
	write32(16 * vector + 8, 0x4000 + vector);
	write32(16 * vector + 12, control);
}

/* ---- delivery ---- */

/* Every condition by itself makes the vector pending, and its return delivers once. */
static void test_each_condition(void **state)
{
	static const uint32_t bits[] = { IRQ_BUS_MASTER, IRQ_D0, IRQ_MSIX_FUNCTION_UNMASKED };
	int fd = bind_one(IRQ_MSIX, 3);
	(void)state;
	irq_set_conditions(set, MSIX_ON);
	irq_raise(set, 3);
	assert_int_equal(come(fd), 1);
	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
		irq_set_conditions(set, MSIX_ON & ~bits[i]);
		irq_raise(set, 3);
		irq_raise(set, 3);
		assert_int_equal(come(fd), 0);
		assert_true(is_pending(IRQ_MSIX, 3));
		irq_set_conditions(set, MSIX_ON);
		assert_int_equal(come(fd), 1);
		assert_false(is_pending(IRQ_MSIX, 3));
		irq_reconcile(set);
		assert_int_equal(come(fd), 0);
	}
	close(fd);
}

static void test_lazy_binding(void **state)
{
	(void)state;
	irq_set_conditions(set, MSIX_ON);
	irq_raise(set, 64);
	assert_true(is_pending(IRQ_MSIX, 64));
	int fd = bind_one(IRQ_MSIX, 64);
	assert_int_equal(come(fd), 1);
	assert_int_equal(irq_unbind(set, IRQ_MSIX, 64, 1), 0);
	irq_raise(set, 64);
	assert_int_equal(come(fd), 0);
	close(fd);
	fd = bind_one(IRQ_MSIX, 64);
	assert_int_equal(come(fd), 1);
	close(fd);
}

static void test_modes(void **state)
{
	int x = bind_one(IRQ_MSIX, 0), m = bind_one(IRQ_MSI, 0);
	(void)state;
	/* Neither: nothing, and never replayed. */
	assert_true(irq_uses_intx(set));
	irq_raise(set, 0);
	irq_set_conditions(set, MSIX_ON);
	assert_false(irq_uses_intx(set));
	assert_int_equal(come(x), 0);
	/* From enabled to disabled drops what is pending. */
	irq_set_conditions(set, MSIX_ON & ~IRQ_D0);
	irq_raise(set, 0);
	irq_set_conditions(set, INTX_ON);
	irq_set_conditions(set, MSIX_ON);
	assert_int_equal(come(x), 0);
	/* MSI; and MSI-X wins over it. */
	irq_set_conditions(set, MSI_ON);
	irq_raise(set, 0);
	irq_raise(set, 8);
	irq_raise(set, 0xffff);
	assert_int_equal(come(m), 1);
	assert_int_equal(come(x), 0);
	irq_set_conditions(set, MSI_ON | MSIX_ON);
	irq_raise(set, 0);
	assert_int_equal(come(m), 0);
	assert_int_equal(come(x), 1);
	close(x);
	close(m);
}

static void test_msi_mask(void **state)
{
	int fd = bind_one(IRQ_MSI, 5);
	(void)state;
	irq_set_conditions(set, MSI_ON);
	irq_msi_set_mask(set, 1u << 5);
	irq_raise(set, 5);
	assert_int_equal(come(fd), 0);
	assert_int_equal(irq_msi_pending(set), 1u << 5);
	irq_msi_set_mask(set, ~(1u << 5));
	assert_int_equal(come(fd), 1);
	assert_int_equal(irq_msi_pending(set), 0);
	close(fd);
}

/* ---- the table ---- */

static void test_table_masks_count_once_used(void **state)
{
	int fd = bind_one(IRQ_MSIX, 1), other = bind_one(IRQ_MSIX, 2);
	uint8_t qword[8];
	(void)state;
	irq_set_conditions(set, MSIX_ON);
	irq_raise(set, 1);
	assert_int_equal(come(fd), 1); /* a client that keeps the table itself: binding is the unmask */
	program(1, 0);
	irq_raise(set, 1);
	assert_int_equal(come(fd), 1);
	irq_raise(set, 2); /* its entry is masked, as after reset */
	assert_int_equal(come(other), 0);
	irq_pba_read(set, 0, qword, 8);
	assert_int_equal(load_le64(qword), 1u << 2);
	program(2, 0);
	assert_int_equal(come(other), 1);
	write32(16 + 12, 1);
	irq_raise(set, 1);
	assert_int_equal(come(fd), 0);
	write32(16 + 12, 0);
	assert_int_equal(come(fd), 1);
	/* The next client may be of the other kind. */
	irq_unbind_all(set);
	close(other);
	other = bind_one(IRQ_MSIX, 3);
	irq_raise(set, 3);
	assert_int_equal(come(other), 1);
	close(fd);
	close(other);
}

static void test_table_registers(void **state)
{
	uint8_t data[16];
	(void)state;
	assert_int_equal(read32(12), 1);
	write32(0, ~0u);
	write32(12, ~0u);
	assert_int_equal(read32(0), ~3u);
	assert_int_equal(read32(12), 1);
	memset(data, 0x5a, sizeof data);
	irq_table_write(set, 8, data, 8);
	irq_table_read(set, 8, data, 8);
	assert_int_equal(load_le32(data), 0x5a5a5a5a);
	assert_int_equal(load_le32(data + 4), 0);
	/* What is not an aligned dword or qword, or outside, reads as ones and writes nothing. */
	static const struct { uint64_t offset; uint32_t length; } bad[] = {
		{ 0, 1 }, { 0, 2 }, { 2, 4 }, { 4, 8 }, { 0, 16 }, { 0, 3 }, { 16 * VECTORS, 4 }, { 16 * VECTORS - 4, 8 },
		{ UINT64_MAX - 3, 4 }, { UINT64_MAX - 7, 8 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(data, 0, sizeof data);
		irq_table_write(set, bad[i].offset, data, bad[i].length);
		irq_table_read(set, bad[i].offset, data, bad[i].length);
		for (unsigned b = 0; b < bad[i].length; b++)
			assert_int_equal(data[b], 0xff);
		memset(data, 0, sizeof data);
		irq_pba_read(set, bad[i].offset ? bad[i].offset : 1, data, bad[i].length);
		assert_int_equal(data[0], 0xff);
	}
	assert_int_equal(read32(8), 0x5a5a5a5a);
}

/* ---- resets ---- */

static void test_lost_table(void **state)
{
	int fd = bind_one(IRQ_MSIX, 4);
	(void)state;
	irq_set_conditions(set, MSIX_ON);
	program(4, 0);
	irq_lose_held(set);
	assert_true(differs(4));
	assert_int_equal(read32(16 * 4 + 8), 0);
	irq_raise(set, 4); /* between loss and reconcile: held back, not lost */
	assert_int_equal(come(fd), 0);
	irq_reconcile(set);
	assert_int_equal(come(fd), 1);
	assert_false(differs(4));
	assert_int_equal(read32(16 * 4 + 8), 0x4004);
	irq_raise(set, 4);
	assert_int_equal(come(fd), 1);
	close(fd);
}

/* The same for a client that never looked at the table. */
static void test_lost_table_of_blind_client(void **state)
{
	int fd = bind_one(IRQ_MSIX, 4);
	(void)state;
	irq_set_conditions(set, MSIX_ON);
	irq_lose_held(set);
	irq_raise(set, 4);
	assert_int_equal(come(fd), 0);
	irq_reconcile(set);
	assert_int_equal(come(fd), 1);
	close(fd);
}

static void test_asked_reset(void **state)
{
	int fd = bind_one(IRQ_MSIX, 4), err = bind_one(IRQ_ERR, 0), line = bind_one(IRQ_INTX, 0);
	(void)state;
	irq_set_conditions(set, MSIX_ON & ~IRQ_D0);
	program(4, 0);
	irq_raise(set, 4);
	irq_set_conditions(set, INTX_ON);
	irq_drop_pending(set);
	irq_reset_wanted(set);
	assert_int_equal(read32(16 * 4 + 8), 0);
	assert_int_equal(read32(16 * 4 + 12), 1);
	/* Bindings stay. */
	assert_true(irq_signal(set, IRQ_ERR));
	assert_int_equal(come(err), 1);
	irq_level(set, true);
	assert_int_equal(come(line), 1);
	irq_set_conditions(set, MSIX_ON);
	assert_int_equal(come(fd), 0);
	program(4, 0);
	irq_raise(set, 4);
	assert_int_equal(come(fd), 1);
	close(fd);
	close(err);
	close(line);
}

/* ---- INTx ---- */

static void test_intx(void **state)
{
	int fd = bind_one(IRQ_INTX, 0);
	(void)state;
	irq_set_conditions(set, INTX_ON); /* without bus master */
	irq_level(set, true);
	assert_int_equal(come(fd), 1);
	irq_level(set, false);
	irq_level(set, true);
	assert_int_equal(come(fd), 0); /* masked itself */
	irq_mask(set, IRQ_INTX, 0, 1, false);
	assert_int_equal(come(fd), 1); /* still up */
	irq_level(set, false);
	irq_mask(set, IRQ_INTX, 0, 1, false);
	assert_int_equal(come(fd), 0);
	irq_set_conditions(set, IRQ_D0);
	irq_level(set, true);
	assert_int_equal(come(fd), 0); /* Interrupt Disable */
	irq_set_conditions(set, INTX_ON | IRQ_MSIX_ENABLED);
	assert_int_equal(come(fd), 0);
	irq_set_conditions(set, INTX_ON);
	assert_int_equal(come(fd), 1);
	irq_drop_pending(set);
	irq_mask(set, IRQ_INTX, 0, 1, false);
	assert_int_equal(come(fd), 0);
	close(fd);
}

static void test_intx_unmask_eventfd(void **state)
{
	int fd = bind_one(IRQ_INTX, 0), unmask = eventfd(0, EFD_CLOEXEC), mine = dup(unmask);
	uint64_t one = 1;
	(void)state;
	assert_int_equal(irq_bind_unmask(set, unmask), 0);
	irq_set_conditions(set, INTX_ON);
	irq_level(set, true);
	assert_int_equal(come(fd), 1);
	assert_int_equal(write(mine, &one, sizeof one), sizeof one);
	turn_idle(owner);
	assert_int_equal(come(fd), 1);
	turn_idle(owner);
	assert_int_equal(come(fd), 0);
	close(fd);
	close(mine);
}

static void raise_line(void *context)
{
	irq_level(context, true);
}

static void test_intx_from_thread(void **state)
{
	struct busy_loop busy;
	int fd = bind_one(IRQ_INTX, 0);
	(void)state;
	irq_set_conditions(set, INTX_ON);
	assert_int_equal(busy_start(&busy), 0);
	busy.last = raise_line;
	busy.context = set;
	busy_enter(&busy);
	busy_leave(&busy);
	while (!come(fd))
		loop_turn(owner, -1);
	busy_stop(&busy);
	close(fd);
}

/* ---- binding ---- */

static void test_bind_errors(void **state)
{
	int pipes[2], fds[2];
	(void)state;
	assert_int_equal(pipe(pipes), 0);
	fds[0] = eventfd(0, 0);
	fds[1] = pipes[0];
	int kept = dup(fds[0]);
	assert_int_equal(irq_bind(set, IRQ_MSIX, 0, 2, fds), -EINVAL);
	/* All of them are closed, and none bound. */
	assert_int_equal(fcntl(fds[0], F_GETFD), -1);
	assert_int_equal(fcntl(fds[1], F_GETFD), -1);
	irq_set_conditions(set, MSIX_ON);
	irq_raise(set, 0);
	assert_int_equal(poll(&(struct pollfd){ .fd = kept, .events = POLLIN }, 1, 0), 0);
	fds[0] = kept;
	assert_int_equal(irq_bind(set, IRQ_MSIX, VECTORS, 1, fds), -EINVAL);
	assert_int_equal(fcntl(kept, F_GETFD), -1);
	fds[0] = -1;
	assert_int_equal(irq_bind(set, IRQ_MSIX, VECTORS - 1, 1, fds), 0);
	assert_int_equal(irq_bind(set, IRQ_MSIX, VECTORS, 1, fds), -EINVAL);
	assert_int_equal(irq_unbind(set, IRQ_MSIX, 1, UINT32_MAX), -EINVAL);
	assert_int_equal(irq_mask(set, IRQ_MSIX, VECTORS, 1, true), -EINVAL);
	assert_int_equal(irq_inject(set, IRQ_MSI, 8), -EINVAL);
	assert_int_equal(irq_bind_unmask(set, pipes[1]), -EINVAL);
	assert_int_equal(fcntl(pipes[1], F_GETFD), -1);
}

/* An unbound descriptor is closed when no I/O thread can be writing to it, and not before. */
static void test_unbound_is_closed_later(void **state)
{
	struct busy_loop busy;
	int fd = eventfd(0, EFD_NONBLOCK), second = eventfd(0, EFD_NONBLOCK);
	int bound = fd;
	(void)state;
	assert_int_equal(busy_start(&busy), 0);
	assert_int_equal(life_loop_add(life, busy_loop_of(&busy)), 0);
	assert_int_equal(irq_bind(set, IRQ_MSIX, 0, 1, &bound), 0);
	irq_set_conditions(set, MSIX_ON);
	busy_enter(&busy);
	bound = second;
	assert_int_equal(irq_bind(set, IRQ_MSIX, 0, 1, &bound), 0); /* takes the place of the first */
	irq_unbind_kind(set, IRQ_MSIX);
	turn_idle(owner);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	assert_true(fcntl(second, F_GETFD) >= 0);
	assert_false(life_settled(life));
	busy_leave(&busy);
	while (fcntl(second, F_GETFD) >= 0)
		loop_turn(owner, -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	life_loop_remove(life, busy_loop_of(&busy));
	busy_stop(&busy);
}

static void test_client_mask_and_inject(void **state)
{
	int fd = bind_one(IRQ_MSIX, 9), req = bind_one(IRQ_REQ, 0), line = bind_one(IRQ_INTX, 0);
	(void)state;
	irq_set_conditions(set, MSIX_ON);
	assert_int_equal(irq_mask(set, IRQ_MSIX, 0, VECTORS, true), 0);
	assert_int_equal(irq_inject(set, IRQ_MSIX, 9), 0);
	assert_int_equal(come(fd), 0);
	assert_int_equal(irq_mask(set, IRQ_MSIX, 0, VECTORS, false), 0);
	assert_int_equal(come(fd), 1);
	assert_int_equal(irq_inject(set, IRQ_REQ, 0), 0);
	assert_int_equal(come(req), 1);
	assert_int_equal(irq_inject(set, IRQ_INTX, 0), 0);
	assert_int_equal(come(line), 0);
	irq_set_conditions(set, INTX_ON);
	assert_int_equal(irq_inject(set, IRQ_INTX, 0), 0);
	assert_int_equal(come(line), 1);
	assert_false(irq_signal(set, IRQ_ERR));
	close(fd);
	close(req);
	close(line);
}

/* ---- an embedder's call-back ---- */

static struct { unsigned messages, rises, falls; enum irq_kind kind; uint32_t vector; bool reenter; } heard;

static void on_interrupt(void *context, enum irq_kind kind, uint32_t vector, bool level)
{
	assert_ptr_equal(context, &heard);
	if (kind == IRQ_INTX) {
		heard.rises += level;
		heard.falls += !level;
		return;
	}
	heard.messages++;
	heard.kind = kind;
	heard.vector = vector;
	if (heard.reenter) {
		/* Law 5: the receiver may do anything from in here. */
		irq_set_conditions(set, 0);
		irq_unbind_all(set);
	}
}

static void test_callback(void **state)
{
	(void)state;
	memset(&heard, 0, sizeof heard);
	irq_bind_callback(set, on_interrupt, &heard);
	irq_set_conditions(set, MSIX_ON);
	irq_raise(set, 66);
	assert_int_equal(heard.messages, 0); /* never from inside the access that raises */
	turn_idle(owner);
	assert_int_equal(heard.messages, 1);
	assert_int_equal(heard.vector, 66);
	irq_set_conditions(set, MSIX_ON & ~IRQ_BUS_MASTER);
	irq_raise(set, 1);
	turn_idle(owner);
	assert_int_equal(heard.messages, 1);
	irq_set_conditions(set, MSIX_ON);
	turn_idle(owner);
	assert_int_equal(heard.messages, 2);
	irq_set_conditions(set, INTX_ON);
	irq_level(set, true);
	irq_level(set, false);
	turn_idle(owner);
	assert_int_equal(heard.rises, 0);
	irq_level(set, true);
	turn_idle(owner);
	irq_level(set, false);
	turn_idle(owner);
	assert_int_equal(heard.rises, 1);
	assert_int_equal(heard.falls, 1);
	irq_set_conditions(set, MSIX_ON);
	heard.reenter = true;
	irq_raise(set, 2);
	irq_raise(set, 3);
	turn_idle(owner);
	assert_int_equal(heard.messages, 3);
	assert_int_equal(heard.vector, 2);
}

/* What was raised and not reported yet when the owner takes delivery away: held back, or dropped with its mode, but not reported after that is answered. */
static void test_callback_taken_back(void **state)
{
	const uint8_t masked[4] = { 1 }, clear[4] = { 0 };
	(void)state;
	memset(&heard, 0, sizeof heard);
	irq_bind_callback(set, on_interrupt, &heard);
	irq_set_conditions(set, MSIX_ON);
	irq_raise(set, 5);
	irq_set_conditions(set, MSIX_ON & ~IRQ_BUS_MASTER);
	turn_idle(owner);
	assert_int_equal(heard.messages, 0);
	irq_set_conditions(set, MSIX_ON);
	turn_idle(owner);
	assert_int_equal(heard.messages, 1);
	irq_table_write(set, 5 * 16 + 12, clear, sizeof clear);
	irq_raise(set, 5);
	irq_table_write(set, 5 * 16 + 12, masked, sizeof masked);
	turn_idle(owner);
	assert_int_equal(heard.messages, 1);
	irq_table_write(set, 5 * 16 + 12, clear, sizeof clear);
	turn_idle(owner);
	assert_int_equal(heard.messages, 2);
	irq_raise(set, 5);
	irq_set_conditions(set, INTX_ON);
	irq_set_conditions(set, MSIX_ON);
	turn_idle(owner);
	assert_int_equal(heard.messages, 2);
}

/* ---- hostile triggers ---- */

/* Full and blocking: the counter is at its end, and the descriptor is not O_NONBLOCK. A write would never return. */
static void test_full_and_blocking(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), mine = dup(fd);
	uint64_t most = UINT64_MAX - 1, count = 0;
	(void)state;
	assert_int_equal(write(mine, &most, sizeof most), sizeof most);
	assert_int_equal(irq_bind(set, IRQ_MSIX, 0, 1, &fd), 0);
	irq_set_conditions(set, MSIX_ON);
	alarm(60); /* ends the test instead of hanging it */
	for (int i = 0; i < 1000; i++)
		irq_raise(set, 0);
	alarm(0);
	/* The flag was not touched, and the next one comes. */
	assert_false(fcntl(mine, F_GETFL) & O_NONBLOCK);
	assert_int_equal(read(mine, &count, sizeof count), sizeof count);
	irq_raise(set, 0);
	assert_int_equal(read(mine, &count, sizeof count), sizeof count);
	assert_int_equal(count, 1);
	close(mine);
}

static void test_event_fd(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), pipes[2];
	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_true(event_fd_check(fd));
	assert_false(event_fd_check(pipes[0]));
	assert_false(event_fd_check(-1));
	assert_false(event_fd_check(4000));
	alarm(60);
	assert_false(event_fd_take(fd)); /* empty and blocking */
	event_fd_signal(fd);
	event_fd_signal(fd);
	assert_true(event_fd_take(fd));
	assert_false(event_fd_take(fd));
	alarm(0);
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
}

/* Where asynchronous I/O is refused: the same, but for the race that event.c describes. */
static void *without_aio(void *context)
{
	(void)context;
	for (int i = 0; i < 1000; i++)
		irq_raise(set, 0);
	return NULL;
}

static void test_without_aio(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), mine = dup(fd);
	uint64_t count = 0, most = UINT64_MAX - 1001;
	pthread_t thread;
	(void)state;
	assert_int_equal(irq_bind(set, IRQ_MSIX, 0, 1, &fd), 0);
	irq_set_conditions(set, MSIX_ON);
	/* A new thread makes a new context; there is none to be had. */
	event_refuse_aio = true;
	alarm(60);
	assert_int_equal(pthread_create(&thread, NULL, without_aio, NULL), 0);
	pthread_join(thread, NULL);
	assert_int_equal(read(mine, &count, sizeof count), sizeof count);
	assert_int_equal(count, 1000);
	assert_int_equal(write(mine, &most, sizeof most), sizeof most);
	for (int i = 0; i < 2; i++) { /* fills it, and then finds it full */
		assert_int_equal(pthread_create(&thread, NULL, without_aio, NULL), 0);
		pthread_join(thread, NULL);
	}
	alarm(0);
	event_refuse_aio = false;
	close(mine);
}

/* ---- raising against masking ---- */

#define ROUNDS 20000u

static struct {
	_Atomic uint32_t asked, done;
	_Atomic bool end;
} race;

static void *raiser(void *context)
{
	(void)context;
	for (uint32_t next = 1;; next++) {
		while (atomic_load(&race.asked) < next)
			if (atomic_load(&race.end))
				return NULL;
		irq_raise(set, 7);
		atomic_store(&race.done, next);
	}
}

/* Each raise meets a change of the mask. Whoever is first, there is exactly one interrupt for it. */
static void test_race(void **state)
{
	pthread_t thread;
	int fd = bind_one(IRQ_MSIX, 7);
	(void)state;
	irq_set_conditions(set, MSIX_ON);
	assert_int_equal(pthread_create(&thread, NULL, raiser, NULL), 0);
	uint64_t begun = loop_clock();
	for (uint32_t i = 1; race_goes_on(begun, i - 1, 500, ROUNDS); i++) {
		bool unmasking = i & 1;
		irq_set_conditions(set, unmasking ? MSIX_ON & ~IRQ_MSIX_FUNCTION_UNMASKED : MSIX_ON);
		atomic_store(&race.asked, i);
		for (unsigned spin = 0; spin < i % 61; spin++)
			__asm__ volatile("");
		irq_set_conditions(set, unmasking ? MSIX_ON : MSIX_ON & ~IRQ_MSIX_FUNCTION_UNMASKED);
		while (atomic_load(&race.done) < i)
			;
		irq_set_conditions(set, MSIX_ON);
		assert_int_equal(come(fd), 1);
		assert_false(is_pending(IRQ_MSIX, 7));
	}
	atomic_store(&race.end, true);
	pthread_join(thread, NULL);
	close(fd);
}

static void test_create_errors(void **state)
{
	static const struct irq_options bad[] = { { .msix_vectors = 2049 }, { .msi_vectors = 3 }, { .msi_vectors = 64 } };
	struct irq_set *none;
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(irq_create(&none, &bad[i], life, NULL), -EINVAL);
	const struct irq_options empty = { 0 };
	assert_int_equal(irq_create(&none, &empty, life, NULL), 0);
	irq_raise(none, 0);
	irq_set_conditions(none, MSIX_ON);
	irq_raise(none, 0);
	irq_level(none, true);
	assert_int_equal(irq_count(none, IRQ_INTX), 0);
	irq_destroy(none);
	irq_destroy(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_each_condition),
		TEST(test_lazy_binding),
		TEST(test_modes),
		TEST(test_msi_mask),
		TEST(test_table_masks_count_once_used),
		TEST(test_table_registers),
		TEST(test_lost_table),
		TEST(test_lost_table_of_blind_client),
		TEST(test_asked_reset),
		TEST(test_intx),
		TEST(test_intx_unmask_eventfd),
		TEST(test_intx_from_thread),
		TEST(test_bind_errors),
		TEST(test_unbound_is_closed_later),
		TEST(test_client_mask_and_inject),
		TEST(test_callback),
		TEST(test_callback_taken_back),
		TEST(test_full_and_blocking),
		TEST(test_event_fd),
		TEST(test_without_aio),
		TEST(test_race),
		TEST(test_create_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

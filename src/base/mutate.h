// SPDX-License-Identifier: BSD-2-Clause
/*
 * Mutations: run-time switches of the test build that turn one law off, to show that its test can fail.
 *
 * PINTLE_MUTATE holds a comma-separated list of the names below. A build without -Dmutations=true has none: every
 * mutate() is the constant false and the names are not in the binary.
 */
#ifndef BASE_MUTATE_H
#define BASE_MUTATE_H

#include <stdbool.h>

/* X(identifier, "name", what is turned off) */
#define MUTATIONS(X)                                                                                             \
	X(LAW1_GATE, "law1.gate", "rings are processed although the gate is closed")                             \
	X(LAW1_BLIND, "law1.blind", "rings are read through a closed gate, as DMA without bus master is answered: zeros")  \
	X(LAW1_PUBLISH, "law1.publish", "completions are published although the gate is closed")                 \
	X(LAW1_ANSWER, "law1.answer", "a closing access is answered before the I/O threads are quiescent")       \
	X(LAW1_KICK, "law1.kick", "rings are not looked at when the gate opens")                                 \
	X(LAW1_ZEROCOPY, "law1.zerocopy", "a closing access does not wait for zero-copy requests")               \
	X(LAW1_UNMAP, "law1.unmap", "an unmap is answered while the range is still in use")                      \
	X(LAW1_MISS, "law1.miss", "a translation miss needs a reset instead of stalling the queue")              \
	X(LAW1_MESSAGE, "law1.message", "a closing access waits for the replies to DMA messages")                \
	X(LAW2_RECONCILE, "law2.reconcile", "an unannounced reset is not followed by reconcile")                 \
	X(LAW2_PENDING, "law2.pending", "an interrupt raised while masked is dropped")                           \
	X(LAW2_TWICE, "law2.twice", "a pending bit is not cleared on delivery")                                  \
	X(LAW2_TAKE_BACK, "law2.take_back", "signals that the client has not read when bus master goes off are left to it") \
	X(LAW2_CHECK, "law2.check", "nobody looks at the hardware for resets that were not announced")           \
	X(LAW2_BARS, "law2.bars", "nobody looks whether the hardware's BARs are what the kernel has given")      \
	X(LAW2_UNBIND, "law2.unbind", "a reset unbinds the client's triggers")                                   \
	X(LAW3_INLINE, "law3.inline", "the owner waits for the I/O threads instead of completing later")         \
	X(LAW3_UNPLUG, "law3.unplug", "an unplug that was asked for is waited for on the control thread")          \
	X(LAW3_ZPCI_LOCK, "law3.zpci_lock", "zPCI: a lock is held over the store block, and taken by unplug")    \
	X(LAW3_XEN, "law3.xen", "Xen: an operation of one guest is done by the owner while the others wait")     \
	X(LAW4_XEN, "law4.xen", "Xen: reset before the interrupts are unbound, and nothing verified")             \
	X(LAW4_FENCE, "law4.fence", "requests of the next life do not wait for those of the previous one")       \
	X(LAW4_UNBIND, "law4.unbind", "a lost connection leaves its triggers and mappings")                      \
	X(LAW5_INLINE, "law5.inline", "a configuration change is delivered from inside the access")              \
	X(LAW5_LOST, "law5.lost", "a configuration change during another's delivery is dropped")                 \
	X(LAW5_CCW_INLINE, "law5.ccw_inline", "what is pending in the channel subsystem is announced from inside the instruction") \
	X(LAW6_SPLIT, "law6.split", "accesses are split into 4-byte pieces on their way")                        \
	X(LAW7_PARKED, "law7.parked", "parked requests are left out of the saved state")                         \
	X(LAW7_TWICE, "law7.twice", "restored requests are done again")                                          \
	X(LAW7_MANDATORY, "law7.mandatory", "an unknown mandatory section is passed over")                       \
	X(LAW7_PROGRAM, "law7.program", "a channel program goes on while its device is saved")                   \
	X(LAW7_INTERRUPTION, "law7.interruption", "interruptions that nobody has taken are left out of the saved state") \
	X(LAW8_FLR, "law8.flr", "FLR leaves the virtio state")                                                   \
	X(LAW8_QUEUE_RESET, "law8.queue_reset", "queue_reset reads 0 before the back end has ended")           \
	X(LAW8_POWER, "law8.power", "D3hot to D0 of a device with No_Soft_Reset = 0 leaves its state")           \
	X(LAW8_REMOVAL, "law8.removal", "a surprise removal is an asked unplug")

enum mutation {
#define X(id, name, text) MUTATE_##id,
	MUTATIONS(X)
#undef X
		MUTATION_COUNT
};

#ifdef PINTLE_MUTATIONS
bool mutate(enum mutation mutation); /* any thread; reads the environment once */
#else
static inline bool mutate(enum mutation mutation)
{
	(void)mutation;
	return false;
}
#endif

#endif

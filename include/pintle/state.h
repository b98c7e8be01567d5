// SPDX-License-Identifier: BSD-2-Clause
/*
 * Saved state: a function's whole state as a stream of bytes, and back, in another process, on another machine, by another version of the library. The memory of the guest
 * is not part of it, nor are the client's mappings and interrupt triggers: the client makes those anew, and the guest's driver notices nothing.
 *
 * Functions of the library's own (pintle_blk_create, pintle_rng_create, pintle_balloon_create) can be saved; one with a device model cannot: its registers are the model's. Channel devices, and what
 * a machine of z/Architecture has one of, are saved by the functions of css.h and zpci.h.
 */
#ifndef PINTLE_STATE_H
#define PINTLE_STATE_H

#include <stddef.h>
#include <stdint.h>

#include <pintle/error.h>
#include <pintle/function.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The newest compatibility level: what readers of this version understand. An older level can be asked for, down to 1. */
#define PINTLE_STATE_LEVEL 3

/* The end of a save: 0 and the file, which is malloc'ed and the receiver's to free; or a negative errno, and err says why. On the loop's thread. */
typedef void pintle_saved_fn(void *context, int result, void *file, size_t length, const struct pintle_error *err);

/*
 * Stops the function and saves it. Requests that the disk has are waited for without holding anybody up, and travel as answered; guest memory is not touched from the moment on at
 * which the function has stopped. fn is called once, from the loop or from inside. The function stays stopped: destroy it, or call pintle_resume.
 * level: PINTLE_STATE_LEVEL, or an older one, for an older reader; state that it could not express is refused by name. 0; -ENOTSUP, -EBUSY, -EINVAL, -ENOMEM: fn is not called.
 */
int pintle_save(struct pintle_function *function, unsigned level, pintle_saved_fn *fn, void *context, struct pintle_error *err);

/* Goes on with a function that was saved, in vain. */
void pintle_resume(struct pintle_function *function);

/*
 * Makes a function that was just created, and has had no client, what the saved one was. It has to be of the same model: vendor, device, class, queues; every feature that the driver
 * uses has to be offered. When a client has attached and mapped the guest's memory, it goes on. On an error the function is as new, and err says what differs.
 * -EBADMSG (damaged), -ENOTSUP (newer than this version, or another model), -EBUSY, -ENOMEM.
 */
int pintle_restore(struct pintle_function *function, const void *file, size_t length, struct pintle_error *err);

#ifdef __cplusplus
}
#endif
#endif

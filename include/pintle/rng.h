// SPDX-License-Identifier: BSD-2-Clause
/*
 * A virtio entropy device (virtio 1.3, section 5.4): random numbers of the host's kernel, as a PCI function. As a channel device: pintle_rng_create_ccw in css.h.
 */
#ifndef PINTLE_RNG_H
#define PINTLE_RNG_H

#include <pintle/function.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pintle_rng_options {
	const char *name; /* for logs */
	uint64_t rate; /* bytes a second that the guest gets at most; 0: no limit */
};

/*
 * Makes it, with a thread that runs its queue: for set-up. 0 or a negative errno; err says what to do about it. Ends with pintle_function_destroy.
 */
int pintle_rng_create(struct pintle_function **out, struct pintle_loop *loop, const struct pintle_rng_options *options,
		      struct pintle_error *err);
/* How many bytes the guest was given since the device was made. Any thread. */
uint64_t pintle_rng_bytes(struct pintle_function *rng);

#ifdef __cplusplus
}
#endif
#endif

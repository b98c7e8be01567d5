// SPDX-License-Identifier: BSD-2-Clause
/*
 * Running a configuration: makes threads, devices and roads, serves until it is told to end, and ends in order.
 */
#ifndef SERVE_SERVE_H
#define SERVE_SERVE_H

#include "serve/config.h"

/*
 * Serves until SIGTERM or SIGINT; SIGHUP looks at the sizes of the images again. On the calling thread, whose signal mask it sets. Returns 0 after an orderly end: no new
 * client or request was taken, what was under way has ended, caches are flushed, sockets removed.
 */
int serve_run(struct serve_config *config, struct pintle_error *err);

#endif

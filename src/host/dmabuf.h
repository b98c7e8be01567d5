// SPDX-License-Identifier: BSD-2-Clause
/*
 * BARs mapped by descriptors that can be revoked (bars=dmabuf): what the running kernel lacks for that. No kernel has been found that has all of it, so that there is a probe and a refusal, and
 * nothing that would use it.
 */
#ifndef HOST_DMABUF_H
#define HOST_DMABUF_H

#include "host/vfio.h"

/* Says in err which step the kernel does not take. Always negative. The device is given up by this: it may be closed. Blocks, as host_vfio_close does. */
int host_dmabuf_refuse(struct host_vfio *vfio, struct pintle_error *err);

#endif

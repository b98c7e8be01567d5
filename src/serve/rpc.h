// SPDX-License-Identifier: BSD-2-Clause
/*
 * JSON-RPC 2.0, one object a line: a request becomes a call, a call ends in one reply. Methods stand in one table (methods.c): name, parameters, function.
 *
 * A method of a device runs on the device's owner thread; whoever has the call may reply, once, from that thread or from the control thread, now or later. A call that waits
 * for something of the device's holds the device (served_device_hold), so that it does not end before.
 */
#ifndef SERVE_RPC_H
#define SERVE_RPC_H

#include "serve/control.h"

enum rpc_error {
	RPC_PARSE = -32700, RPC_INVALID = -32600, RPC_NO_METHOD = -32601, RPC_PARAMS = -32602, RPC_INTERNAL = -32603,
	RPC_FAILED = -32000, /* the method's own failure; error.data.errno says which */
};

enum rpc_kind { RPC_STRING, RPC_BOOL, RPC_INTEGER, RPC_SECONDS, RPC_ANY };

struct rpc_param {
	const char *name;
	enum rpc_kind kind;
	bool required;
};

/* The last two take "id", a device. */
enum rpc_where { RPC_ON_CONTROL, RPC_ON_OWNER, RPC_DEVICE_ON_CONTROL };

struct rpc_call;

/* A visit of every device: on its owner, one after the other, each adding to call->all; then end, on the control thread, which takes call->all. */
struct rpc_each {
	json_t *(*visit)(struct served_device *device);
	void (*end)(struct rpc_call *call);
};

struct rpc_method {
	const char *name;
	const struct rpc_param *params; /* up to one without a name; NULL: anything, the function looks */
	enum rpc_where where;
	void (*fn)(struct rpc_call *call);
	const char *text;
};
extern const struct rpc_method rpc_methods[]; /* up to one without a name */

struct rpc_call {
	struct control_client *client;
	struct control *control;
	const struct rpc_method *method;
	json_t *id, *params; /* id: NULL for a notification */
	struct served_device *device;
	struct loop_message message;
	json_t *reply;

	/* the method's own, for what comes later */
	struct list link;
	struct pci_request request;
	unsigned value;
	/* of a call that visits all devices */
	const struct rpc_each *each;
	size_t next;
	json_t *all;
};

/* Any of the two threads, once: the call is gone afterwards. rpc_result takes the reference; NULL is a lack of memory. */
void rpc_result(struct rpc_call *call, json_t *result);
/* error: negative errno. */
void rpc_fail(struct rpc_call *call, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
void rpc_refuse(struct rpc_call *call, const char *format, ...) __attribute__((format(printf, 2, 3))); /* RPC_PARAMS */

/* Parameters by kind; what is not there is the default. They have been checked against the table. */
const char *rpc_string(const struct rpc_call *call, const char *name, const char *otherwise);
bool rpc_bool(const struct rpc_call *call, const char *name, bool otherwise);
int64_t rpc_integer(const struct rpc_call *call, const char *name, int64_t otherwise);
uint64_t rpc_nanoseconds(const struct rpc_call *call, const char *name, uint64_t otherwise);
/* Checks an object against a table: true, or refuses the call. names in `beside` are taken besides. */
bool rpc_check(struct rpc_call *call, const struct rpc_param *params, const struct rpc_param *beside);

/* ---- for control.c ---- */

/* One line of a client, without its end. */
void rpc_handle(struct control_client *client, const char *line, size_t length);
void rpc_refuse_long(struct control_client *client);

#endif

// SPDX-License-Identifier: BSD-2-Clause
/*
 * Instructions as operations: made on the caller's thread, run on the owner's, ended once.
 *
 * On the loop's own thread an operation runs at once, and the instruction function returns its condition code if it has ended by then. On any other it is a message, and always pending.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/mutate.h"
#include "road/zpci/zpci.h"

/* No memory for an instruction: the guest tries again. */
int zpci_op_busy(struct pintle_zpci_answer *answer)
{
	*answer = (struct pintle_zpci_answer){ .cc = 2 };
	return answer->cc;
}

struct zpci_op *zpci_op_make(struct pintle_zpci *zpci, void (*run)(struct zpci_op *), size_t bytes, struct pintle_zpci_answer *answer,
			     pintle_zpci_done_fn *done, void *context)
{
	struct zpci_op *op = calloc(1, sizeof *op + max_of(bytes, sizeof(uint64_t)));

	if (!op)
		return NULL;
	op->zpci = zpci;
	op->run = run;
	op->answer = answer;
	op->done = done;
	op->context = context;
	op->holds = 1;
	list_init(&op->link);
	return op;
}

void zpci_op_drop(struct zpci_op *op)
{
	if (!--op->holds)
		free(op);
}

static void run_message(struct loop_message *message)
{
	struct zpci_op *op = container_of(message, struct zpci_op, message);

	op->run(op);
}

int zpci_op_issue(struct zpci_op *op)
{
	struct pintle_zpci *zpci = op->zpci;

	if (!zpci->one_thread && loop_current() != zpci->loop) {
		loop_post(zpci->loop, &op->message, run_message);
		return PINTLE_ZPCI_PENDING;
	}
	op->inside = true;
	op->run(op);
	op->inside = false;
	if (!op->answered)
		return PINTLE_ZPCI_PENDING;
	int cc = op->result.cc;
	*op->answer = op->result;
	zpci_op_drop(op);
	return cc;
}

static void tell(struct loop_message *message)
{
	struct zpci_op *op = container_of(message, struct zpci_op, message);
	pintle_zpci_done_fn *done = op->done;
	void *context = op->context;

	*op->answer = op->result;
	zpci_op_drop(op);
	assert_no_lock();
	if (done)
		done(context);
}

void zpci_op_end(struct zpci_op *op, int cc, uint8_t status)
{
	assert(!op->answered);
	op->result.cc = cc;
	op->result.status = status;
	op->answered = true;
	/* Whoever called is still there and reads it; otherwise by message: nobody's call-back is called from inside somebody else's instruction. */
	if (!op->inside)
		loop_post(op->zpci->loop, &op->message, tell);
}

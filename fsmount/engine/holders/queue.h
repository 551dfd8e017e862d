/* queue.h - the queue of requests that wait for room; see queue.c. */
#ifndef FSM_QUEUE_H
#define FSM_QUEUE_H

#include "counters/counter.h"

typedef struct request {
    uint32_t n;
    cell *cells[FSM_RESOURCES_MAX]; /* of one holder and different counters */
    int64_t amount[FSM_RESOURCES_MAX];
} request;

int enqueue(fsm_region *r, waiter *w);
/* Takes a request out of the queue, answered or not, and frees it. */
int dequeue(fsm_region *r, waiter *w);
/* Frees a waiter that is in no queue. */
void free_waiter(fsm_region *r, waiter *w);
/* Frees the parts of a request, from this one on. */
void free_parts(fsm_region *r, uint32_t index);

/* 0: it is the request's turn, and all of it fits. 1: it has to wait, and *at is the last full counter, if any. */
int try_turn(fsm_region *r, const request *q, const counter **at);
/* Charges for a request; `record`: its waiter, or NONE. */
int charge_request(fsm_region *r, const request *q, uint32_t record);

/* Goes through the queue, and grants each request that has its turn and fits. */
int serve_queue(fsm_region *r);
void serve_full(fsm_region *r, const ancestry *p); /* if a request waits for room at a counter of the path */
int serve_after_recovery(fsm_region *r);           /* also wakes processes whose wake-up may have been lost */
/* Ends the requests of a holder, or only those for one of its cells. */
int end_requests(fsm_region *r, uint32_t owner, const cell *cl);

static inline void serve_waiting(fsm_region *r, const ancestry *p)
{
    if (r->header->waiting > 0)
        serve_full(r, p);
}

#endif

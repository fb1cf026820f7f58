/* Jobs, timers and promises. Nothing else can happen while a task waits. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "engine.h"

/* The promises that were rejected, and that nobody has handled. */
static JSValue *rejected;
static size_t rejected_count, rejected_room;

static void forget_rejection(JSValueConst promise)
{
    for (size_t index = 0; index < rejected_count; index++)
        if (JS_VALUE_GET_PTR(rejected[index]) == JS_VALUE_GET_PTR(promise)) {
            JS_FreeValue(js, rejected[index]);
            rejected[index] = rejected[--rejected_count];
            return;
        }
}

static void track(JSContext *context, JSValueConst promise, JSValueConst reason, bool is_handled, void *opaque)
{
    (void)reason, (void)opaque;
    if (is_handled) {
        forget_rejection(promise);
        return;
    }
    if (rejected_count == rejected_room) {
        size_t room = rejected_room ? 2 * rejected_room : 16;
        JSValue *grown = realloc(rejected, room * sizeof *rejected);
        if (!grown)
            return;
        rejected = grown;
        rejected_room = room;
    }
    rejected[rejected_count++] = JS_DupValue(context, promise);
}

void loop_watch(JSRuntime *runtime)
{
    JS_SetHostPromiseRejectionTracker(runtime, track, NULL);
}

bool loop_run_jobs(void)
{
    JSRuntime *runtime = JS_GetRuntime(js);
    JSContext *context;
    int ran;
    while ((ran = JS_ExecutePendingJob(runtime, &context)) > 0)
        ;
    return ran == 0;
}

/* Waits until the next timer is due, and runs it. Returns false if there is none, or if it throws. */
static bool wait_for_timer(void)
{
    JSValue next = has_timers ? JS_Call(js, sdk.fire, JS_UNDEFINED, 0, NULL) : JS_NewInt32(js, -1);
    double millis;
    if (JS_IsException(next) || JS_ToFloat64(js, &millis, next) < 0)
        return false;
    if (millis < 0) {
        JS_ThrowPlainError(js, "the task waits for what cannot come: no timer is set, and its promise is not settled");
        return false;
    }
    if (millis > 0) {
        millis = ceil(millis);
        struct timespec pause = {(time_t)(millis / 1000), (long)fmod(millis, 1000) * 1000000};
        nanosleep(&pause, NULL);
    }
    return true;
}

JSValue loop_settle(JSValue value)
{
    if (!JS_IsPromise(value))
        return value;
    JS_PromiseMarkAsHandled(js, value);
    forget_rejection(value);
    bool goes_on = loop_run_jobs();
    while (goes_on && JS_PromiseState(js, value) == JS_PROMISE_PENDING)
        goes_on = wait_for_timer() && loop_run_jobs();
    JSValue result = JS_EXCEPTION;
    if (goes_on) {
        result = JS_PromiseResult(js, value);
        if (JS_PromiseState(js, value) == JS_PROMISE_REJECTED)
            result = JS_Throw(js, result);
    }
    JS_FreeValue(js, value);
    return result;
}

bool loop_end(void)
{
    bool is_done = !JS_IsJobPending(JS_GetRuntime(js)) || loop_run_jobs();
    if (has_timers) {
        JS_FreeValue(js, JS_Call(js, sdk.forget, JS_UNDEFINED, 0, NULL));
        has_timers = false;
    }
    if (is_done && rejected_count > 0) {
        JS_Throw(js, JS_PromiseResult(js, rejected[0]));
        is_done = false;
    }
    while (rejected_count > 0)
        JS_FreeValue(js, rejected[--rejected_count]);
    return is_done;
}

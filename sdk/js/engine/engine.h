/*
 * The engine of tasks in JavaScript: QuickJS, the plugin ABI, and what the SDK's own JavaScript cannot do by itself.
 *
 *   inside.c   what needs the structures of QuickJS
 *   read.c     from CBOR to JavaScript
 *   numbers.c  its numbers
 *   write.c    from JavaScript to CBOR
 *   text.c     UTF-8
 *   files.c    the author's files, and their modules
 *   host.c     the functions of the node, as JavaScript sees them
 *   loop.c     jobs, timers and promises
 *   task.c     a task and its items
 *   main.c     the exports
 */
#ifndef PCLUSTER_ENGINE_H
#define PCLUSTER_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quickjs.h"

/* The most levels of lists and maps in an item. */
#define DEPTH 128

/* Where an error was thrown. */
typedef enum { IN_TASK, IN_ITEM, IN_OUTPUT } Fault;

/* What a task returns to its node. */
enum { DONE, FAILED };

/* The one context. */
extern JSContext *js;

/* Functions and prototypes of the SDK's JavaScript. */
typedef struct {
    /* Makes a task ready: (number) => [function, init, config, examples]. */
    JSValue load;
    /* Tells the node why: (error, fault) => status. */
    JSValue failed;
    /* Returns the tasks as lines of JSON. */
    JSValue describe;
    /* Runs the timers that are due. Returns the milliseconds until the next, or -1. */
    JSValue fire;
    /* Forgets all timers. */
    JSValue forget;
    /* Makes a value of a tag: (number, value) => value. */
    JSValue tagged;
    /* Makes an integer of digits in base 16: (digits, is_negative) => bigint. */
    JSValue bigint;
    /* Returns what stands for an object that has no form of its own. Throws if nothing does. */
    JSValue stand_in;
    /* The prototypes of `Tag` and `WithTopic`. */
    JSValue tag, topic;
} Sdk;

extern Sdk sdk;

/* What kind of value an object is. */
typedef enum { PLAIN, LIST, BYTES, BUFFER, MAP, GENERATOR, ASYNC_GENERATOR, OTHER } Kind;

/* inside.c */
void inside_limit_stack(JSRuntime *runtime, uintptr_t lowest);
void inside_seed(JSContext *context, uint64_t seed);
Kind inside_kind(JSValueConst object);
bool inside_has_prototype(JSValueConst object, JSValueConst prototype);
bool inside_is_ordinary(JSContext *context, JSValueConst object);
const uint8_t *inside_latin1(JSValueConst text, size_t *length);
int inside_properties(JSValueConst object, JSAtom *names, JSValue *values, int most);
void inside_settle_memory(JSRuntime *runtime);

/* read.c: reads the one item that takes up all bytes. Throws why it cannot be read. */
JSValue read_item(const uint8_t *bytes, size_t length);

/* numbers.c */
JSValue read_integer(uint64_t number, bool is_negative);
JSValue read_large_integer(const uint8_t *bytes, size_t length, bool is_negative);
double read_half(uint16_t bits);

/* write.c: the output that was written last. */
extern uint8_t *written;
extern size_t written_length;

/* Writes a value in place of the last. Throws why it cannot be written, and returns false. */
bool write_item(JSValueConst value);

/* text.c */
bool text_is_valid(const uint8_t *bytes, size_t length);
JSValue text_encode(JSContext *context, JSValueConst self, int count, JSValueConst *arguments);
JSValue text_decode(JSContext *context, JSValueConst self, int count, JSValueConst *arguments);

/* files.c */
typedef struct {
    const char *path;
    size_t path_length;
    /* A zero follows the content. */
    const char *content;
    size_t length;
} File;

bool file_find(const char *path, size_t length, File *found);
JSValue file_import(const char *path);
void files_serve_modules(JSRuntime *runtime);

/* host.c */
JSValue host_functions(void);
void host_give(const uint8_t *output, size_t length, const char *topic);
void host_say_why(const char *reason, size_t length);
int32_t host_next(int32_t status);
void host_read_item(uint8_t *to);
uint64_t host_random(void);
/* Outputs and lines of the log go nowhere: an example runs. */
extern bool is_muted;
/* JavaScript has set a timer since the last item. */
extern bool has_timers;

/* loop.c */
void loop_watch(JSRuntime *runtime);
/* Runs the jobs that wait. Throws what a job throws, and returns false. */
bool loop_run_jobs(void);
/* Returns what a promise comes to, and any other value as it is. Takes ownership. */
JSValue loop_settle(JSValue value);
/* Ends what an item has left. Throws a rejection that nobody has handled, and returns false. */
bool loop_end(void);

/* task.c */
int32_t task_load(int32_t number);
int32_t task_run(int32_t number, const uint8_t *item, size_t length);
int32_t task_describe(void);

#endif

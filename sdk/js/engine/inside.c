/* QuickJS, and what needs its structures. */
#include <stdint.h>

/*
 * What a function that calls itself takes of this stack, besides what it takes already. It takes of the stack of WebAssembly too,
 * which nothing can look at: so that this one ends first, a function that has little on this one takes more of it than it needs.
 * The check of each such function in QuickJS is compiled as this one. Those that parse source code take no more: code nests more
 * deeply than values, and no item has any.
 */
#define CHECK_STACK(RUNTIME, SIZE)                                                                                                       \
    ({                                                                                                                                   \
        void *room = __builtin_alloca((SIZE) == 0 ? TAKEN : 1);                                                                          \
        __asm__ volatile("" ::"r"(room));                                                                                                \
        js_check_stack_overflow(RUNTIME, SIZE);                                                                                          \
    })
/* Without it, deep JSON exhausts the stack of WebAssembly first. */
enum { TAKEN = 512 };

#include "quickjs.c"

#include "engine.h"

/* Sets how far the stack may grow down. QuickJS sets no bound itself where it is WebAssembly. */
void inside_limit_stack(JSRuntime *runtime, uintptr_t lowest)
{
    runtime->stack_limit = lowest;
}

/* Starts `Math.random` anew. */
void inside_seed(JSContext *context, uint64_t seed)
{
    context->random_state = seed ? seed : 1;
}

Kind inside_kind(JSValueConst object)
{
    switch (JS_VALUE_GET_OBJ(object)->class_id) {
    case JS_CLASS_OBJECT:
        return PLAIN;
    case JS_CLASS_ARRAY:
        return LIST;
    case JS_CLASS_UINT8_ARRAY:
        return BYTES;
    case JS_CLASS_ARRAY_BUFFER:
        return BUFFER;
    case JS_CLASS_MAP:
        return MAP;
    case JS_CLASS_GENERATOR:
        return GENERATOR;
    case JS_CLASS_ASYNC_GENERATOR:
        return ASYNC_GENERATOR;
    default:
        return OTHER;
    }
}

bool inside_has_prototype(JSValueConst object, JSValueConst prototype)
{
    return JS_VALUE_GET_OBJ(object)->shape->proto == JS_VALUE_GET_OBJ(prototype);
}

/* Returns true for an object of no class of the author: `{}`, or one without a prototype. */
bool inside_is_ordinary(JSContext *context, JSValueConst object)
{
    JSObject *prototype = JS_VALUE_GET_OBJ(object)->shape->proto;
    return !prototype || prototype == JS_VALUE_GET_OBJ(context->class_proto[JS_CLASS_OBJECT]);
}

/* Returns the characters of a text, if it has one byte for each. NULL if it has not. */
const uint8_t *inside_latin1(JSValueConst text, size_t *length)
{
    if (JS_VALUE_GET_TAG(text) != JS_TAG_STRING)
        return NULL;
    JSString *string = JS_VALUE_GET_STRING(text);
    if (string->is_wide_char)
        return NULL;
    *length = string->len;
    return str8(string);
}

/* Collects what is left over, and collects nothing else for a while: that would write to every object of the snapshot. */
void inside_settle_memory(JSRuntime *runtime)
{
    enum { QUIET_BYTES = 8 << 20 };
    JS_RunGC(runtime);
    size_t used = runtime->malloc_state.malloc_size;
    runtime->malloc_gc_threshold = used + (used / 2 > QUIET_BYTES ? used / 2 : QUIET_BYTES);
}

/*
 * Takes the names and values of the properties of an ordinary object. Returns their number, or -1 if it takes more than this: there are
 * too many, one is computed, or names that look like numbers must be put first.
 */
int inside_properties(JSValueConst object, JSAtom *names, JSValue *values, int most)
{
    JSObject *source = JS_VALUE_GET_OBJ(object);
    JSShape *shape = source->shape;
    if (source->is_exotic || shape->prop_count > most)
        return -1;
    int count = 0;
    for (int index = 0; index < shape->prop_count; index++) {
        JSShapeProperty *property = &get_shape_prop(shape)[index];
        if (property->atom == JS_ATOM_NULL)
            continue;
        bool is_plain = (property->flags & (JS_PROP_TMASK | JS_PROP_ENUMERABLE)) == JS_PROP_ENUMERABLE;
        if (!is_plain || __JS_AtomIsTaggedInt(property->atom) || JS_IsUndefined(source->prop[index].u.value) ||
            js->rt->atom_array[property->atom]->atom_type != JS_ATOM_TYPE_STRING)
            return -1;
        names[count] = property->atom;
        values[count++] = source->prop[index].u.value;
    }
    for (int index = 0; index < count; index++) {
        JS_DupAtom(js, names[index]);
        JS_DupValue(js, values[index]);
    }
    return count;
}

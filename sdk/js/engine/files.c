/* The author's files, which `build` puts behind the memory, and the modules among them. */
#include "engine.h"

/* Where the files are, and their size. `build` writes both into the module. */
__attribute__((used)) volatile uint32_t pcluster_files[2] = {0x7a11f11e, 0};

/* The module that the SDK is imported by, and its folder. */
static const char OWN[] = "pcluster", OWN_FOLDER[] = "pcluster/";

static uint32_t number_at(const char **at)
{
    uint32_t number;
    memcpy(&number, *at, sizeof number);
    *at += sizeof number;
    return number;
}

bool file_find(const char *path, size_t length, File *found)
{
    const char *at = (const char *)pcluster_files[0];
    if (pcluster_files[1] == 0)
        return false;
    for (uint32_t left = number_at(&at); left > 0; left--) {
        found->path_length = number_at(&at);
        found->length = number_at(&at);
        found->path = at;
        found->content = at + found->path_length;
        at = found->content + found->length + 1;
        if (found->path_length == length && memcmp(found->path, path, length) == 0)
            return true;
    }
    return false;
}

/* Compiles a file as a module. */
static JSValue compile(const char *path)
{
    File file;
    if (!file_find(path, strlen(path), &file))
        return JS_ThrowReferenceError(js, "the plugin has no module `%s`", path);
    return JS_Eval(js, file.content, file.length, path, JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
}

JSValue file_import(const char *path)
{
    JSValue module = compile(path);
    if (JS_IsException(module))
        return module;
    JSModuleDef *definition = JS_VALUE_GET_PTR(module);
    JSValue ended = loop_settle(JS_EvalFunction(js, module));
    if (JS_IsException(ended))
        return ended;
    JS_FreeValue(js, ended);
    return JS_GetModuleNamespace(js, definition);
}

/* Puts the parts of a path behind a folder, and takes `.` and `..` out. Returns the length. */
static size_t join(char *to, size_t length, const char *path)
{
    while (*path) {
        size_t part = strcspn(path, "/");
        if (part == 2 && memcmp(path, "..", 2) == 0) {
            while (length > 0 && to[--length] != '/')
                ;
        } else if (part > 0 && !(part == 1 && *path == '.')) {
            if (length > 0)
                to[length++] = '/';
            memcpy(to + length, path, part);
            length += part;
        }
        path += part;
        path += *path == '/';
    }
    to[length] = 0;
    return length;
}

/* Returns the path of the file that a module imports by a name. */
static char *normalize(JSContext *context, const char *base, const char *name, void *opaque)
{
    (void)opaque;
    char *path = js_malloc(context, strlen(base) + strlen(name) + sizeof OWN_FOLDER + sizeof "index.js");
    if (!path)
        return NULL;
    if (name[0] == '.') {
        const char *slash = strrchr(base, '/');
        size_t folder = slash ? slash - base : 0;
        memcpy(path, base, folder);
        join(path, folder, name);
    } else if (strcmp(name, OWN) == 0) {
        strcpy(path, "pcluster/index.js");
    } else if (strncmp(name, OWN_FOLDER, sizeof OWN_FOLDER - 1) == 0 && !strstr(name, ".js")) {
        strcat(strcpy(path, name), ".js");
    } else {
        strcpy(path, name);
    }
    return path;
}

static JSModuleDef *load(JSContext *context, const char *path, void *opaque)
{
    (void)context, (void)opaque;
    JSValue module = compile(path);
    if (JS_IsException(module))
        return NULL;
    JSModuleDef *definition = JS_VALUE_GET_PTR(module);
    JS_FreeValue(js, module);
    return definition;
}

void files_serve_modules(JSRuntime *runtime)
{
    JS_SetModuleLoaderFunc(runtime, normalize, load, NULL);
}

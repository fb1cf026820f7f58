;; A plugin without the SDK: the ABI and nothing else. Its one task, `plain`, gives every item twice, unchanged.
;;
;; An item is one CBOR data item. This task does not look into it, so it handles items of every type.
;;
;; There is no custom section `pcluster`: it is optional, and a node then finds the tasks by the names of the exports.

(module
  ;; emit(pointer, length) gives out one item. The node copies the bytes before the call returns.
  (import "pcluster_v1" "emit" (func $emit (param $pointer i32) (param $length i32)))

  ;; The node writes items into this memory and reads outputs from it. It starts with one page of 64 KiB.
  (memory (export "memory") 1)

  ;; Where the next buffer begins. 0 is left free, because a pointer of 0 looks like none.
  (global $next (mut i32) (i32.const 16))

  ;; pcluster_alloc(length) -> pointer: room for one item. The node asks for it before it calls the task.
  ;;
  ;; Nothing is ever given back. With a fresh instance for each item, nothing has to be.
  (func (export "pcluster_alloc") (param $length i32) (result i32)
    (local $pointer i32)
    (local $missing i32)
    (local.set $pointer (global.get $next))
    (global.set $next (i32.add (local.get $pointer) (local.get $length)))

    ;; How many pages the end of the buffer lies beyond the end of the memory: ceil(end / 64 KiB) - size.
    (local.set $missing
      (i32.sub
        (i32.shr_u (i32.add (global.get $next) (i32.const 0xffff)) (i32.const 16))
        (memory.size)))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then
        ;; memory.grow answers -1 if the limit that the stage sets for memory does not allow it. To trap fails the item
        ;; with that reason; to go on would have the node write out of bounds.
        (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1))
          (then (unreachable)))))
    (local.get $pointer))

  ;; pcluster_task:<name>(pointer, length) -> status. The buffer belongs to the plugin from here on.
  (func (export "pcluster_task:plain") (param $pointer i32) (param $length i32) (result i32)
    (call $emit (local.get $pointer) (local.get $length))
    (call $emit (local.get $pointer) (local.get $length))
    ;; 0 is done; 1 would be failed, 2 failed for good.
    (i32.const 0)))

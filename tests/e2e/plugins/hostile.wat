;; A plugin whose tasks mean harm, each in its own way. A node that runs them must not care.

(module
  (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
  (import "pcluster_v1" "log" (func $log (param i32 i32 i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))

  (memory (export "memory") 16)
  (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 1024))

  ;; Calls itself without end.
  (func $overflow (export "pcluster_task:overflow") (param i32 i32) (result i32)
    (call $overflow (local.get 0) (local.get 1)))

  ;; Ends the program as if all were well.
  (func (export "pcluster_task:exit") (param i32 i32) (result i32)
    (call $exit (i32.const 0)) (i32.const 0))

  ;; Gives out what lies outside of its memory.
  (func (export "pcluster_task:wild") (param i32 i32) (result i32)
    (call $emit (i32.const -16) (i32.const 0x7fffffff)) (i32.const 0))

  ;; Takes all the memory that it can get, and then more.
  (func (export "pcluster_task:greedy") (param i32 i32) (result i32)
    (loop $more
      (memory.fill (i32.const 0) (i32.const 0xa5) (i32.mul (memory.size) (i32.const 65536)))
      (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    unreachable)

  ;; Keeps the host busy without end: random bytes, empty lines, long lines.
  (func (export "pcluster_task:busy") (param i32 i32) (result i32)
    (loop $again
      (drop (call $random (i32.const 4096) (i32.const 65536)))
      (memory.fill (i32.const 4096) (i32.const 10) (i32.const 65536))
      (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const 65536))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (call $log (i32.const 1) (i32.const 4096) (i32.const 65536))
      (br $again))
    (i32.const 0))

  ;; Returns what no task may return.
  (func (export "pcluster_task:status") (param i32 i32) (result i32) (i32.const 4711)))

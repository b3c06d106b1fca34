;; Scans the events of a chunk of trace text and writes what is plain about them in columns.
;;
;; The host (native.py) puts the text at $TEXT with zeros behind it and calls $scan. Everything is
;; strict JSON here: whatever is out of form makes the scan fail (0) and the host reads the chunk
;; another way. What is in form but not plain (see $event) is handed back as a piece of text.
;; Positions are addresses; functions that read return the position behind what they read, or 0 for
;; failure. No loop needs an end of text to stop at: the zero behind it is in form nowhere.

(module
  ;; Layout ------------------------------------------------------------------------------------

  (memory (export "memory") 1200 1200) ;; 75 MiB, of which only the pages in use cost anything

  (global $EVENT_KEYS (export "EVENT_KEYS") i32 (i32.const 1024)) ;; tables: see $lookup
  (global $ARG_KEYS (export "ARG_KEYS") i32 (i32.const 4096))
  (global $BARE_CATEGORY i32 (i32.const 512)) ;; of events whose arguments are not looked into
  (global $BARE_LENGTH i32 (i32.const 17))
  (data (i32.const 512) "\"python_function\"")
  (global $COUNTS (export "COUNTS") i32 (i32.const 8192)) ;; i32 entries of each list, see $next
  (global $SLOTS i32 (i32.const 8448)) ;; 16 bytes for each argument of the event being read
  (global $STACK i32 (i32.const 12288)) ;; closing brackets of the values being skipped
  (global $DEEPEST i32 (i32.const 512))
  (global $COLUMNS (export "COLUMNS") i32 (i32.const 65536)) ;; 43 columns of 2^17 i64
  (global $COLUMN_SHIFT i32 (i32.const 20))
  (global $MOST_EVENTS (export "MOST_EVENTS") i32 (i32.const 131072))
  (global $KINDS (export "KINDS") i32 (i32.const 46137344)) ;; sets of texts: see $intern
  (global $VALUES (export "VALUES") i32 (i32.const 51380224))
  (global $SCRATCH i32 (i32.const 56623104))
  (global $TEXT (export "TEXT") i32 (i32.const 67108864))
  (global $MOST_TEXT (export "MOST_TEXT") i32 (i32.const 10485760))

  ;; Lists in the columns: the list's number in $COUNTS, and its first column.
  ;;   0 slices   columns 0..3    position, kind, ts, dur
  ;;   1 flows    columns 4..8    position, kind, ts, id, whether bp is "e"
  ;;   2 others   columns 9..11   position, start, end
  ;;   3 raw args columns 12..14  slice, start, end
  ;;   4 + k      columns 15 + 2k slice, value: argument k of $ARG_KEYS; from $FIRST_TEXT on the
  ;;                              value is the number of a text in $VALUES
  (global $FIRST_TEXT i32 (i32.const 12))
  (global $FIRST_RARE i32 (i32.const 14)) ;; arguments from here on make the event's raw

  ;; State -------------------------------------------------------------------------------------

  (global $seed (mut i64) (i64.const 0))
  (global $all_raw (mut i32) (i32.const 0)) ;; every argument is wanted: do not look into them
  (global $escapes (mut i32) (i32.const 0)) ;; backslashes met in strings so far
  (global $plain (mut i32) (i32.const 0)) ;; whether the last number was in the plain form
  (global $number (mut i64) (i64.const 0)) ;; and which it was
  (global $key (mut i32) (i32.const 0)) ;; the number of the last key
  (global $found (mut i32) (i32.const 0)) ;; bits: arguments of this event in $SLOTS
  (global $raw (mut i32) (i32.const 0)) ;; whether they have to be read another way

  ;; Skipping JSON -----------------------------------------------------------------------------

  ;; Calls cost as much as the work of most functions here: hot places look for a space themselves
  ;; before they call $space.
  (func $space (param $p i32) (result i32) (local $c i32) (local $m i32) (local $v v128)
    (loop $more
      (local.set $c (i32.load8_u (local.get $p)))
      (if (i32.gt_u (local.get $c) (i32.const 32)) (then (return (local.get $p))))
      ;; bits 9, 10, 13 and 32: tab, newline, return, space
      (if (i32.eqz (i32.wrap_i64 (i64.and (i64.const 1)
            (i64.shr_u (i64.const 0x100002600) (i64.extend_i32_u (local.get $c))))))
        (then (return (local.get $p))))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      ;; indentation: up to 16 spaces at once
      (local.set $v (v128.load (local.get $p)))
      (local.set $m (i32.xor (i32.const 0xffff)
        (i8x16.bitmask (i8x16.eq (local.get $v) (i8x16.splat (i32.const 32))))))
      (local.set $p (i32.add (local.get $p)
        (select (i32.ctz (local.get $m)) (i32.const 16) (local.get $m))))
      (br $more))
    (unreachable))

  ;; $p is behind the opening quote. 16 bytes at a time to a quote, backslash or control character.
  (func $string (param $p i32) (result i32) (local $v v128) (local $m i32) (local $c i32)
    (loop $more
      (local.set $v (v128.load (local.get $p)))
      (local.set $m (i8x16.bitmask (v128.or
        (v128.or
          (i8x16.eq (local.get $v) (i8x16.splat (i32.const 34)))
          (i8x16.eq (local.get $v) (i8x16.splat (i32.const 92))))
        (i8x16.lt_u (local.get $v) (i8x16.splat (i32.const 32))))))
      (if (i32.eqz (local.get $m)) (then
        (local.set $p (i32.add (local.get $p) (i32.const 16)))
        (br $more)))
      (local.set $p (i32.add (local.get $p) (i32.ctz (local.get $m))))
      (local.set $c (i32.load8_u (local.get $p)))
      (if (i32.eq (local.get $c) (i32.const 34))
        (then (return (i32.add (local.get $p) (i32.const 1)))))
      (if (i32.lt_u (local.get $c) (i32.const 32)) (then (return (i32.const 0))))
      (global.set $escapes (i32.add (global.get $escapes) (i32.const 1)))
      (local.set $p (call $escape (i32.add (local.get $p) (i32.const 1))))
      (br_if $more (local.get $p)))
    (i32.const 0))

  ;; $p is behind a backslash.
  (func $escape (param $p i32) (result i32) (local $c i32)
    (local.set $c (i32.load8_u (local.get $p)))
    (if (i32.eq (local.get $c) (i32.const 117)) (then ;; u
      (if (i32.eqz (call $is_hex_4 (local.get $p))) (then (return (i32.const 0))))
      (if (i32.lt_u (call $surrogate (local.get $p)) (i32.const 8))
        (then (return (i32.add (local.get $p) (i32.const 5)))))
      ;; half a character: in form only with its other half behind it
      (return (select (i32.add (local.get $p) (i32.const 11)) (i32.const 0)
        (i32.and
          (i32.and (i32.lt_u (call $surrogate (local.get $p)) (i32.const 12))
                   (i32.eq (i32.load16_u offset=5 (local.get $p)) (i32.const 0x755c))) ;; \u
          (i32.and (call $is_hex_4 (i32.add (local.get $p) (i32.const 6)))
                   (i32.ge_u (call $surrogate (i32.add (local.get $p) (i32.const 6)))
                             (i32.const 12))))))))
    (select (i32.add (local.get $p) (i32.const 1)) (i32.const 0)
      (i32.or
        (i32.or
          (i32.or (i32.eq (local.get $c) (i32.const 34)) (i32.eq (local.get $c) (i32.const 92)))
          (i32.or (i32.eq (local.get $c) (i32.const 47)) (i32.eq (local.get $c) (i32.const 98))))
        (i32.or
          (i32.or (i32.eq (local.get $c) (i32.const 102)) (i32.eq (local.get $c) (i32.const 110)))
          (i32.or (i32.eq (local.get $c) (i32.const 114)) (i32.eq (local.get $c) (i32.const 116)))))))

  ;; Whether four hexadecimal digits follow on the u at $p.
  (func $is_hex_4 (param $p i32) (result i32)
    (i32.and
      (i32.and (call $is_hex (i32.load8_u offset=1 (local.get $p)))
               (call $is_hex (i32.load8_u offset=2 (local.get $p))))
      (i32.and (call $is_hex (i32.load8_u offset=3 (local.get $p)))
               (call $is_hex (i32.load8_u offset=4 (local.get $p))))))

  ;; Of the digits behind the u at $p: the second, if the first is D (8 to 11: the first half of a
  ;; character, 12 to 15: the second half), else 0.
  (func $surrogate (param $p i32) (result i32) (local $c i32)
    (local.set $c (i32.load8_u offset=2 (local.get $p)))
    (select
      (select (i32.sub (local.get $c) (i32.const 48)) ;; a digit
              (i32.sub (i32.or (local.get $c) (i32.const 32)) (i32.const 87)) ;; a letter
              (i32.lt_u (local.get $c) (i32.const 58)))
      (i32.const 0)
      (i32.eq (i32.or (i32.load8_u offset=1 (local.get $p)) (i32.const 32)) (i32.const 100))))

  (func $is_hex (param $c i32) (result i32)
    (i32.or
      (i32.lt_u (i32.sub (local.get $c) (i32.const 48)) (i32.const 10))
      (i32.lt_u (i32.sub (i32.or (local.get $c) (i32.const 32)) (i32.const 97)) (i32.const 6))))

  ;; At least one digit.
  (func $digits (param $p i32) (result i32) (local $first i32)
    (local.set $first (local.get $p))
    (loop $more
      (if (i32.lt_u (i32.sub (i32.load8_u (local.get $p)) (i32.const 48)) (i32.const 10)) (then
        (local.set $p (i32.add (local.get $p) (i32.const 1)))
        (br $more))))
    (select (local.get $p) (i32.const 0) (i32.ne (local.get $p) (local.get $first))))

  (func $skip_number (param $p i32) (result i32) (local $first i32) (local $c i32)
    (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 45)) ;; -
      (then (local.set $p (i32.add (local.get $p) (i32.const 1)))))
    (local.set $first (local.get $p))
    (local.set $p (call $digits (local.get $p)))
    (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))
    (if (call $has_leading_zero (local.get $first) (local.get $p)) (then (return (i32.const 0))))
    (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 46)) (then ;; .
      (local.set $p (call $digits (i32.add (local.get $p) (i32.const 1))))
      (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))))
    (if (i32.eq (i32.or (i32.load8_u (local.get $p)) (i32.const 32)) (i32.const 101)) (then ;; e, E
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (local.set $c (i32.load8_u (local.get $p)))
      (if (i32.or (i32.eq (local.get $c) (i32.const 43)) (i32.eq (local.get $c) (i32.const 45)))
        (then (local.set $p (i32.add (local.get $p) (i32.const 1)))))
      (return (call $digits (local.get $p)))))
    (local.get $p))

  (func $has_leading_zero (param $first i32) (param $end i32) (result i32)
    (i32.and
      (i32.gt_u (i32.sub (local.get $end) (local.get $first)) (i32.const 1))
      (i32.eq (i32.load8_u (local.get $first)) (i32.const 48))))

  ;; A string, number or literal.
  (func $skip_scalar (param $p i32) (param $c i32) (result i32) (local $word i32)
    (if (i32.eq (local.get $c) (i32.const 34))
      (then (return (call $string (i32.add (local.get $p) (i32.const 1))))))
    (if (i32.or (i32.eq (local.get $c) (i32.const 45))
                (i32.lt_u (i32.sub (local.get $c) (i32.const 48)) (i32.const 10)))
      (then (return (call $skip_number (local.get $p)))))
    (local.set $word (i32.load (local.get $p)))
    (if (i32.or (i32.eq (local.get $word) (i32.const 0x65757274)) ;; true
                (i32.eq (local.get $word) (i32.const 0x6c6c756e))) ;; null
      (then (return (i32.add (local.get $p) (i32.const 4)))))
    (if (i32.and (i32.eq (local.get $c) (i32.const 102)) ;; f, alse
                 (i32.eq (i32.load offset=1 (local.get $p)) (i32.const 0x65736c61)))
      (then (return (i32.add (local.get $p) (i32.const 5)))))
    (i32.const 0))

  ;; From before a key to its value.
  (func $skip_key (param $p i32) (result i32)
    (if (i32.le_u (i32.load8_u (local.get $p)) (i32.const 32))
      (then (local.set $p (call $space (local.get $p)))))
    (if (i32.ne (i32.load8_u (local.get $p)) (i32.const 34)) (then (return (i32.const 0))))
    (local.set $p (call $string (i32.add (local.get $p) (i32.const 1))))
    (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))
    (call $colon (local.get $p)))

  ;; From behind a key to its value.
  (func $colon (param $p i32) (result i32)
    (if (i32.le_u (i32.load8_u (local.get $p)) (i32.const 32))
      (then (local.set $p (call $space (local.get $p)))))
    (if (i32.ne (i32.load8_u (local.get $p)) (i32.const 58)) (then (return (i32.const 0))))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (local.set $p (i32.add (local.get $p) ;; most often one space
      (i32.eq (i32.load8_u (local.get $p)) (i32.const 32))))
    (if (i32.gt_u (i32.load8_u (local.get $p)) (i32.const 32)) (then (return (local.get $p))))
    (call $space (local.get $p)))

  ;; Any value, without recursion: nesting deeper than $DEEPEST is a failure, not an overflow.
  (func $skip (param $p i32) (result i32) (local $depth i32) (local $c i32) (local $close i32)
    (local $v v128) (local $m i32) (local $end i32)
    (loop $value
      (local.set $c (i32.load8_u (local.get $p)))
      (if (i32.le_u (local.get $c) (i32.const 32)) (then
        (local.set $p (call $space (local.get $p)))
        (local.set $c (i32.load8_u (local.get $p)))))
      (if (i32.eq (i32.or (local.get $c) (i32.const 32)) (i32.const 123)) ;; { or [
        (then
          (local.set $close (i32.add (local.get $c) (i32.const 2)))
          (local.set $p (i32.add (local.get $p) (i32.const 1)))
          (if (i32.le_u (i32.load8_u (local.get $p)) (i32.const 32))
            (then (local.set $p (call $space (local.get $p)))))
          (if (i32.eq (i32.load8_u (local.get $p)) (local.get $close))
            (then (local.set $p (i32.add (local.get $p) (i32.const 1))))
            (else
              (if (i32.eq (local.get $depth) (global.get $DEEPEST))
                (then (return (i32.const 0))))
              (i32.store8 (i32.add (global.get $STACK) (local.get $depth)) (local.get $close))
              (local.set $depth (i32.add (local.get $depth) (i32.const 1)))
              (br_if $value (i32.eq (local.get $close) (i32.const 93)))
              (local.set $p (call $skip_key (local.get $p)))
              (br_if $value (local.get $p))
              (return (i32.const 0)))))
        (else
          ;; the short ones at once: a string without escapes, a whole number
          (local.set $v (v128.load offset=1 (local.get $p)))
          (local.set $end (i32.const 0))
          (if (i32.eq (local.get $c) (i32.const 34)) (then
            (local.set $m (i8x16.bitmask (v128.or
              (v128.or
                (i8x16.eq (local.get $v) (i8x16.splat (i32.const 34)))
                (i8x16.eq (local.get $v) (i8x16.splat (i32.const 92))))
              (i8x16.lt_u (local.get $v) (i8x16.splat (i32.const 32))))))
            (local.set $end (i32.add (local.get $p) (i32.ctz (local.get $m))))
            (local.set $end (select (i32.add (local.get $end) (i32.const 2)) (i32.const 0)
              (i32.and (i32.ne (local.get $m) (i32.const 0))
                       (i32.eq (i32.load8_u offset=1 (local.get $end)) (i32.const 34))))))
          (else (if (i32.lt_u (i32.sub (local.get $c) (i32.const 49)) (i32.const 9)) (then ;; 1-9
            (local.set $m (i8x16.bitmask (i8x16.gt_u
              (i8x16.sub (local.get $v) (i8x16.splat (i32.const 48)))
              (i8x16.splat (i32.const 9)))))
            (local.set $end (i32.add (local.get $p) (i32.ctz (local.get $m))))
            (local.set $c (i32.load8_u offset=1 (local.get $end)))
            (local.set $end (select (i32.add (local.get $end) (i32.const 1)) (i32.const 0)
              (i32.and (i32.ne (local.get $m) (i32.const 0))
                (i32.and (i32.ne (local.get $c) (i32.const 46))
                  (i32.ne (i32.or (local.get $c) (i32.const 32)) (i32.const 101))))))
            (local.set $c (i32.load8_u (local.get $p)))))))
          (if (i32.eqz (local.get $end)) (then
            (local.set $end (call $skip_scalar (local.get $p) (local.get $c)))
            (if (i32.eqz (local.get $end)) (then (return (i32.const 0))))))
          (local.set $p (local.get $end))))
      (loop $behind
        (if (i32.eqz (local.get $depth)) (then (return (local.get $p))))
        (local.set $close (i32.load8_u offset=0
          (i32.add (global.get $STACK) (i32.sub (local.get $depth) (i32.const 1)))))
        (local.set $c (i32.load8_u (local.get $p)))
        (if (i32.le_u (local.get $c) (i32.const 32)) (then
          (local.set $p (call $space (local.get $p)))
          (local.set $c (i32.load8_u (local.get $p)))))
        (local.set $p (i32.add (local.get $p) (i32.const 1)))
        (if (i32.eq (local.get $c) (local.get $close)) (then
          (local.set $depth (i32.sub (local.get $depth) (i32.const 1)))
          (br $behind)))
        (if (i32.ne (local.get $c) (i32.const 44)) (then (return (i32.const 0)))) ;; ,
        (local.set $p (i32.add (local.get $p) ;; most often one space
          (i32.eq (i32.load8_u (local.get $p)) (i32.const 32))))
        (br_if $value (i32.eq (local.get $close) (i32.const 93)))
        (local.set $p (call $skip_key (local.get $p)))
        (br_if $value (local.get $p))
        (return (i32.const 0))))
    (unreachable))

  ;; Numbers -----------------------------------------------------------------------------------

  ;; The number of $n <= 8 digits, as text in a word: neighbours are added up 1, 2 and 4 at a time.
  (func $parse_8 (param $word i64) (param $n i32) (result i64)
    ;; the digits to the far end, so that zeros stand before them; no digits: nothing is left
    (local.set $word (i64.shl
      (i64.and (local.get $word) (i64.const 0x0f0f0f0f0f0f0f0f))
      (i64.extend_i32_u (i32.shl (i32.sub (i32.const 8) (local.get $n)) (i32.const 3)))))
    (local.set $word (i64.and (i64.const 0x00ff00ff00ff00ff)
      (i64.shr_u (i64.mul (local.get $word) (i64.const 2561)) (i64.const 8))))
    (local.set $word (i64.and (i64.const 0x0000ffff0000ffff)
      (i64.shr_u (i64.mul (local.get $word) (i64.const 6553601)) (i64.const 16))))
    (i64.shr_u (i64.mul (local.get $word) (i64.const 42949672960001)) (i64.const 32)))

  ;; How many digits there are, 16 for more.
  (func $count_digits (param $p i32) (result i32)
    (i32.ctz (i32.or (i32.const 0x10000) (i8x16.bitmask (i8x16.gt_u
      (i8x16.sub (v128.load (local.get $p)) (i8x16.splat (i32.const 48)))
      (i8x16.splat (i32.const 9)))))))

  ;; 1 to 15 digits in the form of JSON's whole numbers into $number; behind them, or 0.
  (func $whole (param $p i32) (result i32) (local $n i32)
    (local.set $n (i32.ctz (i32.or (i32.const 0x10000) (i8x16.bitmask (i8x16.gt_u ;; $count_digits
      (i8x16.sub (v128.load (local.get $p)) (i8x16.splat (i32.const 48)))
      (i8x16.splat (i32.const 9)))))))
    (if (i32.gt_u (i32.sub (local.get $n) (i32.const 1)) (i32.const 14)) (then
      (return (i32.const 0))))
    (if (i32.and (i32.gt_u (local.get $n) (i32.const 1))
                 (i32.eq (i32.load8_u (local.get $p)) (i32.const 48)))
      (then (return (i32.const 0))))
    (if (i32.le_u (local.get $n) (i32.const 8))
      (then (global.set $number (call $parse_8 (i64.load (local.get $p)) (local.get $n))))
      (else (global.set $number (i64.add
        (i64.mul (i64.const 100000000)
          (call $parse_8 (i64.load (local.get $p)) (i32.sub (local.get $n) (i32.const 8))))
        (call $parse_8 (i64.load (i32.add (local.get $p) (i32.sub (local.get $n) (i32.const 8))))
                       (i32.const 8))))))
    (i32.add (local.get $p) (local.get $n)))

  ;; Whether a number goes on behind its digits: with a point, an exponent, or more digits.
  (func $goes_on (param $p i32) (result i32) (local $c i32)
    (local.set $c (i32.load8_u (local.get $p)))
    (i32.or
      (i32.lt_u (i32.sub (local.get $c) (i32.const 48)) (i32.const 10))
      (i32.or (i32.eq (local.get $c) (i32.const 46))
              (i32.eq (i32.or (local.get $c) (i32.const 32)) (i32.const 101)))))

  ;; An integer of up to 15 digits into $number; any other value is skipped. $plain says which.
  (func $integer (param $start i32) (result i32) (local $p i32) (local $negative i32)
    (local.set $negative (i32.eq (i32.load8_u (local.get $start)) (i32.const 45)))
    (local.set $p (call $whole (i32.add (local.get $start) (local.get $negative))))
    (global.set $plain (i32.const 0))
    (if (i32.eqz (local.get $p)) (then (return (call $skip (local.get $start)))))
    (if (call $goes_on (local.get $p)) (then (return (call $skip (local.get $start)))))
    (if (local.get $negative)
      (then (global.set $number (i64.sub (i64.const 0) (global.get $number)))))
    (global.set $plain (i32.const 1))
    (local.get $p))

  ;; Microseconds with up to three places, as nanoseconds into $number; else as $integer. Up to 15
  ;; digits before the point, or 16 where the first is 1 to 3 (today in microseconds since 1970):
  ;; two such times add up to less than 2^63 ns.
  (func $time (param $start i32) (result i32) (local $p i32) (local $n i32) (local $lead i64)
    (global.set $plain (i32.const 0))
    (local.set $p (local.get $start))
    (if (i32.eq (call $count_digits (local.get $p)) (i32.const 16)) (then
      (local.set $n (i32.sub (i32.load8_u (local.get $p)) (i32.const 48)))
      (if (i32.gt_u (i32.sub (local.get $n) (i32.const 1)) (i32.const 2))
        (then (return (call $skip (local.get $start)))))
      (local.set $lead (i64.mul (i64.extend_i32_u (local.get $n))
                                (i64.const 1000000000000000)))
      (global.set $number (i64.add
        (i64.mul (i64.const 100000000)
          (call $parse_8 (i64.and (i64.const -256) (i64.load (local.get $p))) (i32.const 8)))
        (call $parse_8 (i64.load offset=8 (local.get $p)) (i32.const 8))))
      (local.set $p (i32.add (local.get $p) (i32.const 16))))
    (else
      (local.set $p (call $whole (local.get $p)))
      (if (i32.eqz (local.get $p)) (then (return (call $skip (local.get $start)))))))
    (global.set $number (i64.mul (i64.const 1000)
      (i64.add (local.get $lead) (global.get $number))))
    (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 46)) (then
      (local.set $n (call $count_digits (i32.add (local.get $p) (i32.const 1))))
      (if (i32.gt_u (i32.sub (local.get $n) (i32.const 1)) (i32.const 2))
        (then (return (call $skip (local.get $start)))))
      (global.set $number (i64.add (global.get $number) (call $thousandths
        (i32.add (local.get $p) (i32.const 1)) (local.get $n))))
      (local.set $p (i32.add (local.get $p) (i32.add (local.get $n) (i32.const 1))))))
    (if (call $goes_on (local.get $p)) (then (return (call $skip (local.get $start)))))
    (global.set $plain (i32.const 1))
    (local.get $p))

  ;; One to three digits behind a point.
  (func $thousandths (param $p i32) (param $n i32) (result i64) (local $value i32)
    (local.set $value (i32.mul (i32.const 100)
      (i32.sub (i32.load8_u (local.get $p)) (i32.const 48))))
    (if (i32.gt_u (local.get $n) (i32.const 1)) (then
      (local.set $value (i32.add (local.get $value) (i32.mul (i32.const 10)
        (i32.sub (i32.load8_u offset=1 (local.get $p)) (i32.const 48)))))))
    (if (i32.gt_u (local.get $n) (i32.const 2)) (then
      (local.set $value (i32.add (local.get $value)
        (i32.sub (i32.load8_u offset=2 (local.get $p)) (i32.const 48))))))
    (i64.extend_i32_u (local.get $value)))

  ;; Texts -------------------------------------------------------------------------------------

  ;; The first $length < 8 bytes as a word; the bytes behind them may be read, and do not count.
  (func $short_word (param $p i32) (param $length i32) (result i64)
    (i64.and (i64.load (local.get $p))
      (i64.sub (i64.shl (i64.const 1)
        (i64.extend_i32_u (i32.shl (local.get $length) (i32.const 3)))) (i64.const 1))))

  (func $is_same (param $a i32) (param $b i32) (param $length i32) (result i32) (local $rest i32)
    (if (i32.lt_u (local.get $length) (i32.const 8)) (then
      (return (i64.eq (call $short_word (local.get $a) (local.get $length))
                      (call $short_word (local.get $b) (local.get $length))))))
    (loop $more
      (if (i32.gt_u (local.get $length) (i32.const 16)) (then
        (if (v128.any_true (v128.xor (v128.load (local.get $a)) (v128.load (local.get $b))))
          (then (return (i32.const 0))))
        (local.set $a (i32.add (local.get $a) (i32.const 16)))
        (local.set $b (i32.add (local.get $b) (i32.const 16)))
        (local.set $length (i32.sub (local.get $length) (i32.const 16)))
        (br $more))))
    ;; 1 to 16 bytes are left: the last 8, and 8 from here or, of fewer, from before here
    (local.set $rest (i32.sub (local.get $length) (i32.const 8)))
    (if (i32.lt_s (local.get $rest) (i32.const 0)) (then
      (return (i64.eq (i64.load (i32.add (local.get $a) (local.get $rest)))
                      (i64.load (i32.add (local.get $b) (local.get $rest)))))))
    (i32.and
      (i64.eq (i64.load (local.get $a)) (i64.load (local.get $b)))
      (i64.eq (i64.load (i32.add (local.get $a) (local.get $rest)))
              (i64.load (i32.add (local.get $b) (local.get $rest))))))

  (func $mix (param $h i64) (param $word i64) (result i64)
    (local.set $h (i64.mul (i64.xor (local.get $h) (local.get $word))
                           (i64.const 0x9e3779b97f4a7c15)))
    (i64.xor (local.get $h) (i64.shr_u (local.get $h) (i64.const 29))))

  (func $hash (param $p i32) (param $length i32) (result i64) (local $h i64) (local $last i32)
    (local.set $h (call $mix (global.get $seed) (i64.extend_i32_u (local.get $length))))
    (if (i32.lt_u (local.get $length) (i32.const 8)) (then
      (return (call $mix (local.get $h) (call $short_word (local.get $p) (local.get $length))))))
    (local.set $last (i32.add (local.get $p) (i32.sub (local.get $length) (i32.const 8))))
    (loop $more
      (local.set $h (i64.mul (i64.xor (local.get $h) (i64.load (local.get $p)))
                             (i64.const 0x9e3779b97f4a7c15))) ;; $mix
      (local.set $h (i64.xor (local.get $h) (i64.shr_u (local.get $h) (i64.const 29))))
      (local.set $p (i32.add (local.get $p) (i32.const 8)))
      (br_if $more (i32.lt_u (local.get $p) (local.get $last))))
    (call $mix (local.get $h) (i64.load (local.get $last))))

  ;; The number of a key in a table, or -1. A table, written by the host: for each length up to 24
  ;; the first entry (16 bits) and how many (16 bits); from 128 on entries of 32 bytes, 24 of text
  ;; and the number.
  (func $lookup (param $table i32) (param $key i32) (param $length i32) (result i32)
    (local $entry i32) (local $left i32) (local $word i64)
    (if (i32.gt_u (local.get $length) (i32.const 24)) (then (return (i32.const -1))))
    (local.set $word (i64.load (local.get $key)))
    (if (i32.lt_u (local.get $length) (i32.const 8)) (then ;; as $short_word
      (local.set $word (i64.and (local.get $word)
        (i64.sub (i64.shl (i64.const 1)
          (i64.extend_i32_u (i32.shl (local.get $length) (i32.const 3)))) (i64.const 1))))))
    (local.set $left (i32.load
      (i32.add (local.get $table) (i32.shl (local.get $length) (i32.const 2)))))
    (local.set $entry (i32.add (i32.add (local.get $table) (i32.const 128))
      (i32.shl (i32.and (local.get $left) (i32.const 0xffff)) (i32.const 5))))
    (local.set $left (i32.shr_u (local.get $left) (i32.const 16)))
    (loop $more
      (if (i32.eqz (local.get $left)) (then (return (i32.const -1))))
      (if (i64.eq (local.get $word) (i64.load (local.get $entry))) (then
        (if (i32.le_u (local.get $length) (i32.const 8))
          (then (return (i32.load offset=24 (local.get $entry)))))
        (if (call $is_same (local.get $key) (local.get $entry) (local.get $length))
          (then (return (i32.load offset=24 (local.get $entry)))))))
      (local.set $entry (i32.add (local.get $entry) (i32.const 32)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br $more))
    (unreachable))

  ;; From before a key to its value, the key's number in a table into $key; $p is at its quote.
  (func $read_key (param $p i32) (param $table i32) (result i32)
    (local $v v128) (local $m i32) (local $first i32) (local $escapes i32)
    (if (i32.ne (i32.load8_u (local.get $p)) (i32.const 34)) (then (return (i32.const 0))))
    (local.set $first (i32.add (local.get $p) (i32.const 1)))
    (local.set $escapes (global.get $escapes))
    ;; as $string does, for the short ones without a call
    (local.set $v (v128.load (local.get $first)))
    (local.set $m (i8x16.bitmask (v128.or
      (v128.or
        (i8x16.eq (local.get $v) (i8x16.splat (i32.const 34)))
        (i8x16.eq (local.get $v) (i8x16.splat (i32.const 92))))
      (i8x16.lt_u (local.get $v) (i8x16.splat (i32.const 32))))))
    (local.set $p (i32.add (local.get $first) (i32.ctz (local.get $m))))
    (if (i32.and (i32.ne (local.get $m) (i32.const 0))
                 (i32.eq (i32.load8_u (local.get $p)) (i32.const 34)))
      (then (local.set $p (i32.add (local.get $p) (i32.const 1))))
      (else
        (local.set $p (call $string (local.get $first)))
        (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))))
    (global.set $key (select
      (i32.const -2) ;; with escapes, which may hide any key
      (call $lookup (local.get $table) (local.get $first)
        (i32.sub (i32.sub (local.get $p) (i32.const 1)) (local.get $first)))
      (i32.ne (local.get $escapes) (global.get $escapes))))
    ;; most often a colon and one space
    (if (i32.eq (i32.load16_u (local.get $p)) (i32.const 0x203a)) (then
      (if (i32.gt_u (i32.load8_u offset=2 (local.get $p)) (i32.const 32))
        (then (return (i32.add (local.get $p) (i32.const 2)))))))
    (call $colon (local.get $p)))

  ;; The number of a text in a set, in order of first appearance; -1 where the set is full. Texts
  ;; are compared byte by byte: different ones never share a number. A set is
  ;;        0  how many texts, i32; 4  bytes of text in use, i32
  ;;       16  2^16 slots, i32: 0, or a text's number + 1
  ;;   262160  2^15 entries of 16 bytes: hash i64, address i32, length i32
  ;;   786448  text, 4 MiB
  (func $intern (param $set i32) (param $text i32) (param $length i32) (result i32)
    (local $h i64) (local $index i32) (local $slot i32) (local $number i32) (local $entry i32)
    (local $tries i32)
    (local.set $h (call $hash (local.get $text) (local.get $length)))
    (local.set $index (i32.wrap_i64 (i64.shr_u (local.get $h) (i64.const 48))))
    (local.set $tries (i32.const 256)) ;; a trace made to collide must not take for ever
    (loop $probe
      (local.set $slot (i32.add (local.get $set) (i32.shl (local.get $index) (i32.const 2))))
      (local.set $number (i32.sub (i32.load offset=16 (local.get $slot)) (i32.const 1)))
      (if (i32.eq (local.get $number) (i32.const -1))
        (then (return (call $enter
          (local.get $set) (local.get $slot) (local.get $h) (local.get $text) (local.get $length)))))
      (local.set $entry (i32.add (i32.add (local.get $set) (i32.const 262160))
                                 (i32.shl (local.get $number) (i32.const 4))))
      (if (i64.eq (i64.load (local.get $entry)) (local.get $h)) (then
        (if (i32.eq (i32.load offset=12 (local.get $entry)) (local.get $length)) (then
          (if (call $is_same (i32.load offset=8 (local.get $entry)) (local.get $text)
                             (local.get $length))
            (then (return (local.get $number))))))))
      (local.set $index (i32.and (i32.add (local.get $index) (i32.const 1)) (i32.const 0xffff)))
      (local.set $tries (i32.sub (local.get $tries) (i32.const 1)))
      (br_if $probe (local.get $tries)))
    (i32.const -1))

  (func $enter (param $set i32) (param $slot i32) (param $h i64) (param $text i32)
      (param $length i32) (result i32)
    (local $number i32) (local $used i32) (local $entry i32) (local $copy i32)
    (local.set $number (i32.load (local.get $set)))
    (local.set $used (i32.load offset=4 (local.get $set)))
    (if (i32.or (i32.eq (local.get $number) (i32.const 32768))
                (i32.gt_u (i32.add (local.get $used) (local.get $length)) (i32.const 4194304)))
      (then (return (i32.const -1))))
    (local.set $copy (i32.add (i32.add (local.get $set) (i32.const 786448)) (local.get $used)))
    (memory.copy (local.get $copy) (local.get $text) (local.get $length))
    (local.set $entry (i32.add (i32.add (local.get $set) (i32.const 262160))
                               (i32.shl (local.get $number) (i32.const 4))))
    (i64.store (local.get $entry) (local.get $h))
    (i32.store offset=8 (local.get $entry) (local.get $copy))
    (i32.store offset=12 (local.get $entry) (local.get $length))
    (i32.store (local.get $set) (i32.add (local.get $number) (i32.const 1)))
    (i32.store offset=4 (local.get $set) (i32.add (local.get $used) (local.get $length)))
    (i32.store offset=16 (local.get $slot) (i32.add (local.get $number) (i32.const 1)))
    (local.get $number))

  ;; Empty a set; its texts get new numbers from 0 on.
  (func (export "forget") (param $set i32)
    (memory.fill (local.get $set) (i32.const 0) (i32.const 262160)))

  ;; Lists -------------------------------------------------------------------------------------

  ;; Index of the next entry of a list.
  (func $next (param $list i32) (result i32) (local $at i32) (local $index i32)
    (local.set $at (i32.add (global.get $COUNTS) (i32.shl (local.get $list) (i32.const 2))))
    (local.set $index (i32.load (local.get $at)))
    (i32.store (local.get $at) (i32.add (local.get $index) (i32.const 1)))
    (local.get $index))

  (func $put (param $column i32) (param $index i32) (param $value i64)
    (i64.store
      (i32.add (i32.add (global.get $COLUMNS)
                        (i32.shl (local.get $column) (global.get $COLUMN_SHIFT)))
               (i32.shl (local.get $index) (i32.const 3)))
      (local.get $value)))

  ;; A position in the text as the host counts it.
  (func $offset (param $p i32) (result i64)
    (i64.extend_i32_u (i32.sub (local.get $p) (global.get $TEXT))))

  ;; Arguments ---------------------------------------------------------------------------------

  (func $slot (param $argument i32) (result i32)
    (i32.add (global.get $SLOTS) (i32.shl (local.get $argument) (i32.const 4))))

  ;; The arguments of $ARG_KEYS into $SLOTS, the rest skipped; $p is at the opening brace.
  (func $arguments (param $p i32) (result i32)
    (local $c i32)
    (local.set $p (call $space (i32.add (local.get $p) (i32.const 1))))
    (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 125)) ;; }
      (then (return (i32.add (local.get $p) (i32.const 1)))))
    (loop $pair
      (if (i32.le_u (i32.load8_u (local.get $p)) (i32.const 32))
        (then (local.set $p (call $space (local.get $p)))))
      (local.set $p (call $read_key (local.get $p) (global.get $ARG_KEYS)))
      (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))
      (if (i32.eq (global.get $key) (i32.const -2)) (then (global.set $raw (i32.const 1))))
      (local.set $p (call $argument (local.get $p) (global.get $key)))
      (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))
      (local.set $c (i32.load8_u (local.get $p)))
      (if (i32.le_u (local.get $c) (i32.const 32)) (then
        (local.set $p (call $space (local.get $p)))
        (local.set $c (i32.load8_u (local.get $p)))))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (br_if $pair (i32.eq (local.get $c) (i32.const 44)))) ;; ,
    (select (local.get $p) (i32.const 0) (i32.eq (local.get $c) (i32.const 125))))

  ;; The value of an argument into its slot.
  (func $argument (param $p i32) (param $argument i32) (result i32) (local $bit i32) (local $end i32)
    (if (i32.lt_s (local.get $argument) (i32.const 0)) (then (return (call $skip (local.get $p)))))
    (local.set $bit (i32.shl (i32.const 1) (local.get $argument)))
    (if (i32.or (i32.and (global.get $found) (local.get $bit)) ;; twice
                (i32.ge_u (local.get $argument) (global.get $FIRST_RARE)))
      (then
        (global.set $raw (i32.const 1))
        (return (call $skip (local.get $p)))))
    (global.set $found (i32.or (global.get $found) (local.get $bit)))
    (if (i32.lt_u (local.get $argument) (global.get $FIRST_TEXT)) (then
      (local.set $p (call $integer (local.get $p)))
      (if (i32.eqz (global.get $plain)) (then (global.set $raw (i32.const 1))))
      (i64.store (call $slot (local.get $argument)) (global.get $number))
      (return (local.get $p))))
    (local.set $end (call $skip (local.get $p)))
    (i32.store offset=8 (call $slot (local.get $argument)) (local.get $p))
    (i32.store offset=12 (call $slot (local.get $argument))
      (i32.sub (local.get $end) (local.get $p)))
    (local.get $end))

  ;; The slots into the lists of their arguments, or the text from $start to $end to the raw ones.
  (func $put_arguments (param $slice i32) (param $start i32) (param $end i32)
    (local $argument i32) (local $index i32)
    (if (i32.eqz (global.get $raw)) (then (call $intern_slots)))
    (if (global.get $raw) (then
      (local.set $index (call $next (i32.const 3)))
      (call $put (i32.const 12) (local.get $index) (i64.extend_i32_u (local.get $slice)))
      (call $put (i32.const 13) (local.get $index) (call $offset (local.get $start)))
      (call $put (i32.const 14) (local.get $index) (call $offset (local.get $end)))
      (return)))
    (loop $more
      (if (i32.eqz (global.get $found)) (then (return)))
      (local.set $argument (i32.ctz (global.get $found)))
      (global.set $found (i32.and (global.get $found)
        (i32.sub (global.get $found) (i32.const 1)))) ;; without its lowest bit
      (local.set $index (call $next (i32.add (local.get $argument) (i32.const 4))))
      (call $put (i32.add (i32.const 15) (i32.shl (local.get $argument) (i32.const 1)))
        (local.get $index) (i64.extend_i32_u (local.get $slice)))
      (call $put (i32.add (i32.const 16) (i32.shl (local.get $argument) (i32.const 1)))
        (local.get $index) (i64.load (call $slot (local.get $argument))))
      (br $more)))

  ;; Number the texts among the slots; all of the event's arguments are raw where the set is full.
  (func $intern_slots (local $argument i32) (local $slot i32) (local $number i32)
    (local.set $argument (global.get $FIRST_TEXT))
    (loop $more
      (if (i32.and (global.get $found) (i32.shl (i32.const 1) (local.get $argument))) (then
        (local.set $slot (call $slot (local.get $argument)))
        (local.set $number (call $intern (global.get $VALUES)
          (i32.load offset=8 (local.get $slot)) (i32.load offset=12 (local.get $slot))))
        (if (i32.lt_s (local.get $number) (i32.const 0))
          (then (global.set $raw (i32.const 1))))
        (i64.store (local.get $slot) (i64.extend_i32_s (local.get $number)))))
      (local.set $argument (i32.add (local.get $argument) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $argument) (global.get $FIRST_RARE)))))

  ;; Events ------------------------------------------------------------------------------------

  ;; Whether the value from $p to $end is the string of one letter $c.
  (func $is_letter (param $p i32) (param $end i32) (param $c i32) (result i32)
    (i32.and
      (i32.eq (i32.sub (local.get $end) (local.get $p)) (i32.const 3))
      (i32.eq (i32.and (i32.load (local.get $p)) (i32.const 0xffffff))
              (i32.or (i32.const 0x220022) (i32.shl (local.get $c) (i32.const 8))))))

  ;; Copy a piece of the names to $SCRATCH + $used; how much is in use then.
  (func $append (param $used i32) (param $start i32) (param $end i32) (result i32)
    (local $length i32)
    (local.set $length (i32.sub (local.get $end) (local.get $start)))
    (memory.copy (i32.add (global.get $SCRATCH) (local.get $used))
      (local.get $start) (local.get $length))
    (local.set $used (i32.add (local.get $used) (local.get $length)))
    (i32.store8 (i32.add (global.get $SCRATCH) (local.get $used)) (i32.const 44)) ;; ,
    (i32.add (local.get $used) (i32.const 1)))

  ;; One event into a list; $p is at its opening brace. A plain one has each key once and without
  ;; escapes, plain numbers, and is a complete event with ts and dur or the start or end of a flow.
  ;; Numbers of keys, bits in $seen: 0 ph, 1 cat, 2 name, 3 pid, 4 tid, 5 ts, 6 dur, 7 args, 8 id,
  ;; 9 bp. The first five are the kind: their text is interned as it stands where they are
  ;; neighbours, and joined by commas otherwise.
  (func $event (param $position i32) (param $p i32) (result i32)
    (local $start i32) (local $key i32) (local $number i32) (local $bit i32) (local $escapes i32)
    (local $value i32) (local $c i32)
    (local $seen i32) (local $odd i32) (local $bare i32) (local $encloses i32)
    (local $run i32) (local $run_end i32) (local $in_run i32) (local $used i32)
    (local $phase i32) (local $ts i64) (local $dur i64) (local $id i64)
    (local $args i32) (local $args_end i32) (local $index i32) (local $row i32)
    (local.set $start (local.get $p))
    (global.set $found (i32.const 0))
    (global.set $raw (i32.const 0))
    (local.set $p (call $space (i32.add (local.get $p) (i32.const 1))))
    (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 125)) (then ;; {}
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (call $put_other (local.get $position) (local.get $start) (local.get $p))
      (return (local.get $p))))

    (loop $pair
      (if (i32.le_u (i32.load8_u (local.get $p)) (i32.const 32))
        (then (local.set $p (call $space (local.get $p)))))
      (local.set $key (local.get $p))
      (local.set $value (call $read_key (local.get $p) (global.get $EVENT_KEYS)))
      (if (i32.eqz (local.get $value)) (then (return (i32.const 0))))
      (local.set $number (global.get $key))
      (local.set $escapes (global.get $escapes))
      (local.set $odd (i32.or (local.get $odd) (i32.eq (local.get $number) (i32.const -2))))
      (if (i32.ge_s (local.get $number) (i32.const 0)) (then
        (local.set $bit (i32.shl (i32.const 1) (local.get $number)))
        (if (i32.and (local.get $seen) (local.get $bit)) (then (local.set $odd (i32.const 1))))
        (local.set $seen (i32.or (local.get $seen) (local.get $bit)))))

      (block $read
        (if (i32.lt_u (local.get $number) (i32.const 5)) (then ;; of the kind; -1 is large here
          (local.set $p (call $skip (local.get $value)))
          (if (i32.eqz (local.get $in_run)) (then
            (if (local.get $run) (then (local.set $used
              (call $append (local.get $used) (local.get $run) (local.get $run_end)))))
            (local.set $run (local.get $key))))
          (local.set $in_run (i32.const 1))
          (local.set $run_end (local.get $p))
          (if (i32.eqz (local.get $number)) (then
            (if (call $is_letter (local.get $value) (local.get $p)
                                 (i32.load8_u offset=1 (local.get $value)))
              (then (local.set $phase (i32.load8_u offset=1 (local.get $value)))))))
          (if (i32.eq (local.get $number) (i32.const 1)) (then
            (if (i32.ne (global.get $escapes) (local.get $escapes))
              (then (local.set $odd (i32.const 1))))
            (if (i32.eq (i32.sub (local.get $p) (local.get $value)) (global.get $BARE_LENGTH))
              (then (local.set $bare (call $is_same
                (local.get $value) (global.get $BARE_CATEGORY) (global.get $BARE_LENGTH)))))))
          (br $read)))
        (local.set $in_run (i32.const 0))
        (if (i32.eq (local.get $number) (i32.const 5)) (then ;; ts
          (local.set $p (call $time (local.get $value)))
          (local.set $ts (global.get $number))
          (local.set $odd (i32.or (local.get $odd) (i32.eqz (global.get $plain))))
          (br $read)))
        (if (i32.eq (local.get $number) (i32.const 6)) (then ;; dur
          (local.set $p (call $time (local.get $value)))
          (local.set $dur (global.get $number))
          (local.set $odd (i32.or (local.get $odd) (i32.eqz (global.get $plain))))
          (br $read)))
        (if (i32.eq (local.get $number) (i32.const 7)) (then ;; args
          (local.set $args (local.get $value))
          (if (i32.ne (i32.load8_u (local.get $value)) (i32.const 123)) ;; {
            (then (local.set $odd (i32.const 1))))
          (if (i32.or (i32.or (local.get $odd) (local.get $bare)) (global.get $all_raw))
            (then
              (global.set $raw (global.get $all_raw))
              (local.set $p (call $skip (local.get $value))))
            (else (local.set $p (call $arguments (local.get $value)))))
          (local.set $args_end (local.get $p))
          (br $read)))
        (if (i32.eq (local.get $number) (i32.const 8)) (then ;; id
          (local.set $p (call $integer (local.get $value)))
          (local.set $id (global.get $number))
          (local.set $odd (i32.or (local.get $odd) (i32.eqz (global.get $plain))))
          (br $read)))
        (local.set $p (call $skip (local.get $value)))
        (if (i32.eq (local.get $number) (i32.const 9)) (then ;; bp
          (local.set $encloses
            (call $is_letter (local.get $value) (local.get $p) (i32.const 101)))
          (local.set $odd (i32.or (local.get $odd) (i32.eqz (local.get $encloses)))))))

      (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))
      (local.set $c (i32.load8_u (local.get $p)))
      (if (i32.le_u (local.get $c) (i32.const 32)) (then
        (local.set $p (call $space (local.get $p)))
        (local.set $c (i32.load8_u (local.get $p)))))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (br_if $pair (i32.eq (local.get $c) (i32.const 44)))) ;; ,
    (if (i32.ne (local.get $c) (i32.const 125)) (then (return (i32.const 0)))) ;; }

    (if (local.get $used) (then ;; the kind is in pieces
      (local.set $used (call $append (local.get $used) (local.get $run) (local.get $run_end)))
      (local.set $run (global.get $SCRATCH))
      (local.set $run_end (i32.add (global.get $SCRATCH)
                                   (i32.sub (local.get $used) (i32.const 1))))))
    (block $other
      (br_if $other (local.get $odd))
      (if (i32.eq (local.get $phase) (i32.const 88)) (then ;; X with ts and dur, no id and no bp
        (br_if $other (i32.ne (i32.and (local.get $seen) (i32.const 0x360)) (i32.const 0x60)))
        (local.set $c (call $intern (global.get $KINDS) (local.get $run)
                                    (i32.sub (local.get $run_end) (local.get $run))))
        (br_if $other (i32.lt_s (local.get $c) (i32.const 0)))
        (local.set $index (call $next (i32.const 0)))
        (local.set $row (i32.shl (local.get $index) (i32.const 3))) ;; $put in columns 0 to 3
        (i64.store offset=65536 (local.get $row) (i64.extend_i32_u (local.get $position)))
        (i64.store offset=1114112 (local.get $row) (i64.extend_i32_u (local.get $c)))
        (i64.store offset=2162688 (local.get $row) (local.get $ts))
        (i64.store offset=3211264 (local.get $row) (local.get $dur))
        (if (i32.and (i32.ne (local.get $args) (i32.const 0))
                     (i32.or (i32.eqz (local.get $bare)) (global.get $all_raw)))
          (then (call $put_arguments
            (local.get $index) (local.get $args) (local.get $args_end))))
        (return (local.get $p))))
      ;; s or f with ts and id
      (br_if $other (i32.and (i32.ne (local.get $phase) (i32.const 115))
                             (i32.ne (local.get $phase) (i32.const 102))))
      (br_if $other (i32.ne (i32.and (local.get $seen) (i32.const 0x120)) (i32.const 0x120)))
      (local.set $c (call $intern (global.get $KINDS) (local.get $run)
                                  (i32.sub (local.get $run_end) (local.get $run))))
      (br_if $other (i32.lt_s (local.get $c) (i32.const 0)))
      (local.set $index (call $next (i32.const 1)))
      (call $put (i32.const 4) (local.get $index) (i64.extend_i32_u (local.get $position)))
      (call $put (i32.const 5) (local.get $index) (i64.extend_i32_u (local.get $c)))
      (call $put (i32.const 6) (local.get $index) (local.get $ts))
      (call $put (i32.const 7) (local.get $index) (local.get $id))
      (call $put (i32.const 8) (local.get $index) (i64.extend_i32_u (local.get $encloses)))
      (return (local.get $p)))
    (call $put_other (local.get $position) (local.get $start) (local.get $p))
    (local.get $p))

  (func $put_other (param $position i32) (param $start i32) (param $end i32) (local $index i32)
    (local.set $index (call $next (i32.const 2)))
    (call $put (i32.const 9) (local.get $index) (i64.extend_i32_u (local.get $position)))
    (call $put (i32.const 10) (local.get $index) (call $offset (local.get $start)))
    (call $put (i32.const 11) (local.get $index) (call $offset (local.get $end))))

  ;; The text of $length bytes at $TEXT: how many events it holds, separated by commas; 0 where it
  ;; is not that, or holds too many.
  (func (export "scan") (param $length i32) (param $seed i64) (param $all_raw i32) (result i32)
    (local $p i32) (local $end i32) (local $count i32)
    (global.set $seed (local.get $seed))
    (global.set $all_raw (local.get $all_raw))
    (memory.fill (global.get $COUNTS) (i32.const 0) (i32.const 128))
    (local.set $p (global.get $TEXT))
    (local.set $end (i32.add (local.get $p) (local.get $length)))
    (loop $more
      (local.set $p (call $space (local.get $p)))
      (if (i32.ne (i32.load8_u (local.get $p)) (i32.const 123)) (then (return (i32.const 0))))
      (if (i32.eq (local.get $count) (global.get $MOST_EVENTS)) (then (return (i32.const 0))))
      (local.set $p (call $event (local.get $count) (local.get $p)))
      (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))
      (local.set $count (i32.add (local.get $count) (i32.const 1)))
      (local.set $p (call $space (local.get $p)))
      (if (i32.eq (local.get $p) (local.get $end)) (then (return (local.get $count))))
      (if (i32.ne (i32.load8_u (local.get $p)) (i32.const 44)) (then (return (i32.const 0))))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (br $more))
    (unreachable))
)

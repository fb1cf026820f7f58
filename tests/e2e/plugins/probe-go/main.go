// Command probe has tasks in Go that show how values pass, and how a task can end.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"log/slog"
	mathrand "math/rand"
	randv2 "math/rand/v2"
	"os"
	"strings"
	"time"

	"pcluster"
)

// echo gives an item as it is.
func echo(cx *pcluster.Context, item any) (any, error) {
	return item, nil
}

// draw draws a number, which is the same in each instance of one snapshot.
func draw(cx *pcluster.Context) (uint64, error) {
	return randv2.Uint64(), nil
}

// dice gives what the state has drawn, and what is drawn for the item.
func dice(drawn uint64, cx *pcluster.Context, item any) ([]any, error) {
	secret := make([]byte, 8)
	rand.Read(secret)
	return []any{drawn, mathrand.Int63(), randv2.Uint64(), hex.EncodeToString(secret), time.Now().UnixNano()}, nil
}

// fresh gives a number of an instance without a state.
func fresh(cx *pcluster.Context, item any) (uint64, error) {
	return randv2.Uint64(), nil
}

// end ends in the way that the item names.
func end(cx *pcluster.Context, how string) (string, error) {
	switch how {
	case "panic":
		var none []int
		return fmt.Sprint(none[len(how)]), nil
	case "nil":
		var none *struct{ a int }
		return fmt.Sprint(none.a), nil
	case "deep":
		return fmt.Sprint(deeper(1)), nil
	case "exit":
		os.Exit(3)
	case "goroutine":
		go func() { select {} }()
	case "elsewhere":
		go func() { panic("boom") }()
		time.Sleep(time.Millisecond)
	case "timer":
		time.AfterFunc(time.Millisecond, func() { panic("a timer of an item before") })
		context.AfterFunc(context.Background(), func() {})
	case "waited":
		done := make(chan string)
		go func() { done <- "waited" }()
		return <-done, nil
	case "stuck":
		<-make(chan int)
	case "sleep":
		time.Sleep(10 * time.Millisecond)
	case "later":
		if cx.Attempt() < 2 {
			return "", pcluster.Transient(errors.New("not yet"), 10*time.Millisecond)
		}
	case "never":
		return "", pcluster.Permanent(fmt.Errorf("it is %w", os.ErrNotExist))
	case "lines":
		slog.Error("an error", "of", cx.Stage())
		slog.Debug("a detail")
		log.Print("a line")
		fmt.Print("half a line")
	}
	return how, nil
}

// seen is how many items the instance has had.
var seen int

// count makes garbage, with circles in it. It gives how many items the instance has had, once in a thousand.
func count(cx *pcluster.Context, item int) (int, error) {
	circle := map[string]any{"item": item, "text": strings.Repeat("a", 100)}
	circle["self"] = []any{circle, make([]int, 100)}
	if seen++; seen%1000 != 0 {
		return 0, pcluster.Drop
	}
	return seen, nil
}

func deeper(n int) int {
	return deeper(n+1) + n
}

func main() {
	pcluster.Map("echo", echo)
	pcluster.MapWith("dice", draw, dice)
	pcluster.Map("fresh", fresh)
	pcluster.Map("end", end)
	pcluster.Map("count", count)
}

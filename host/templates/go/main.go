// Counts the lines, words and bytes of a text on stdin.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Asks for a retry: EX_TEMPFAIL of sysexits.h. Any other code but 0 rejects the task.
const (
	retry  = 75
	reject = 65
)

type counts struct {
	Lines int `json:"lines"`
	Words int `json:"words"`
	Bytes int `json:"bytes"`
}

// An exit is why there is no output, with the code that says so.
type exit struct {
	code int
	why  string
}

func main() {
	payload, err := io.ReadAll(os.Stdin)
	if err != nil {
		stop(exit{retry, err.Error()})
	}
	attempt, _ := strconv.Atoi(os.Getenv("SCUTWORK_ATTEMPT"))
	output, failure := handle(string(payload), attempt)
	if failure != nil {
		stop(*failure)
	}
	json.NewEncoder(os.Stdout).Encode(output)
}

func stop(failure exit) {
	fmt.Fprintln(os.Stderr, failure.why)
	os.Exit(failure.code)
}

func handle(text string, attempt int) (counts, *exit) {
	switch {
	case text == "":
		return counts{}, &exit{reject, "there is nothing to count"}
	case text == "busy" && attempt < 3:
		return counts{}, &exit{retry, "pretends to be busy"}
	case text == "crash":
		// Go ends a panic with exit code 2, which rejects; the manifest can make it a retry:
		// [run] exit = { retry = [2] }
		panic("asked to crash")
	}
	return counts{
		Lines: len(strings.Split(strings.TrimSuffix(text, "\n"), "\n")),
		Words: len(strings.Fields(text)),
		Bytes: len(text),
	}, nil
}

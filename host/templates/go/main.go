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

func main() {
	payload, err := io.ReadAll(os.Stdin)
	if err != nil {
		stop(retry, err.Error())
	}
	attempt, _ := strconv.Atoi(os.Getenv("SCUTWORK_ATTEMPT"))
	switch text := string(payload); {
	case text == "":
		stop(reject, "there is nothing to count")
	case text == "busy" && attempt < 3:
		stop(retry, "pretends to be busy")
	case text == "crash":
		// Go ends a panic with exit code 2, which the manifest's run.exit makes a retry.
		panic("asked to crash")
	default:
		json.NewEncoder(os.Stdout).Encode(count(text))
	}
}

func count(text string) counts {
	return counts{
		Lines: len(strings.Split(strings.TrimSuffix(text, "\n"), "\n")),
		Words: len(strings.Fields(text)),
		Bytes: len(text),
	}
}

func stop(code int, why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(code)
}

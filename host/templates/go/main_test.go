package main

import "testing"

func TestATextIsCounted(t *testing.T) {
	if got, want := count("one two\nthree"), (counts{2, 3, 13}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

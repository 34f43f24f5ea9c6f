package main

import "testing"

func TestATextIsCounted(t *testing.T) {
	got, failure := handle("one two\nthree", 1)
	if want := (counts{2, 3, 13}); failure != nil || got != want {
		t.Errorf("got %v and %v, want %v", got, failure, want)
	}
}

func TestNothingIsRejected(t *testing.T) {
	if _, failure := handle("", 1); failure == nil || failure.code != reject {
		t.Errorf("got %v, want the exit code %v", failure, reject)
	}
}

func TestABusyServiceIsTriedAgain(t *testing.T) {
	if _, failure := handle("busy", 1); failure == nil || failure.code != retry {
		t.Errorf("got %v, want the exit code %v", failure, retry)
	}
	if _, failure := handle("busy", 3); failure != nil {
		t.Errorf("got %v, want counts", failure)
	}
}

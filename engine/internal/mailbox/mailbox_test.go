package mailbox

import "testing"

func BenchmarkPushNext(b *testing.B) {
	var m Mailbox
	m.Init(0)
	x := any(1)
	b.ReportAllocs()
	var got Message
	for b.Loop() {
		m.Push(&Message{Payload: x}, 0)
		m.Next(&got)
	}
}

func BenchmarkChan(b *testing.B) {
	m := make(chan Message, 1)
	x := any(1)
	for b.Loop() {
		m <- Message{Payload: x}
		<-m
	}
}

func BenchmarkStream(b *testing.B) {
	var m Mailbox
	m.Init(0)
	x := any(1)
	b.ReportAllocs()
	done := make(chan int)
	run := func() {
		var got Message
		for {
			for m.Next(&got) {
				if got.CallID == 1 {
					close(done)
				}
			}
			if m.Park() {
				return
			}
		}
	}
	m.Park()
	for b.Loop() {
		if wake, _ := m.Push(&Message{Payload: x}, 0); wake {
			go run()
		}
	}
	if wake, _ := m.Push(&Message{CallID: 1}, 0); wake {
		go run()
	}
	<-done
}

func BenchmarkChanStream(b *testing.B) {
	m := make(chan Message, 1024)
	x := any(1)
	done := make(chan int)
	go func() {
		for range m {
		}
		close(done)
	}()
	for b.Loop() {
		m <- Message{Payload: x}
	}
	close(m)
	<-done
}

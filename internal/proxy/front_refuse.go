package proxy

import "time"

// turnDown answers what cannot be taken for a request.
func (f *front) turnDown(why *refusal) {
	f.x = exchange{plane: f.plane, call: &f.call, client: f, fast: true}
	f.unread(&f.x)
	f.x.head.last, f.begun, f.last = true, false, true
	f.plane.active.Add(1)
	f.x.refuse(why)
	f.x.ended()
	f.plane.active.Add(-1)
	f.linger()
}

// unread makes the call of x one of which only the connection is known, and since when it is there.
func (f *front) unread(x *exchange) {
	*x.call = call{peer: f.peer, client: f.client, local: f.local, secure: f.tls != nil, ours: f.ours}
	if x.rec.began = f.in.Since; x.rec.began.IsZero() {
		x.rec.began = time.Now()
	}
}

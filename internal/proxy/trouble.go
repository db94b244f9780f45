package proxy

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// trouble is why an authority gave no certificate, in words for who has to do something about it.
type trouble struct {
	why   string
	waits []time.Duration // until the next try, by failures before
}

// after is what is remembered once the trouble has come after others.
func (t trouble) after(before try, now time.Time) try {
	wait := t.waits[min(before.Failures, len(t.waits)-1)]
	return try{Failures: before.Failures + 1, Next: now.Add(wait).Truncate(time.Second), Why: t.why}
}

// trouble reads what came of an order for a host.
func (a *acmeAuthority) trouble(host string, err error) trouble {
	var said acme.Problem
	var root rootError
	var kept storedError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var named x509.HostnameError
	switch {
	case errors.As(err, &said):
		waits := waitsRefused
		if said.Type == acme.ProblemTypeRateLimited || said.Status == http.StatusTooManyRequests {
			waits = waitsLimited
		}
		return trouble{a.name() + " refuses: " + oneLine(detail(said)) + "; " + a.remedy(host, said), waits}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), strings.Contains(err.Error(), syscall.EMFILE.Error()):
		return trouble{fmt.Sprintf("the proxy has no file descriptor left to ask %s: %s; %s", a.name(), oneLine(last(err)), MoreFiles), waitsUnreached}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return trouble{fmt.Sprintf("what %s gives cannot be kept in %s: %s; free space on that file system", a.name(), a.storage.Path, oneLine(last(err))), waitsUnreached}
	case errors.As(err, &kept):
		return trouble{fmt.Sprintf("what was given before cannot be used: %v", kept.error), waitsUnreached}
	case errors.As(err, &root):
		return trouble{fmt.Sprintf("the root of the authority: %v; mend the file, or root in tls.acme", root.error), waitsUnreached}
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &named):
		return trouble{fmt.Sprintf("%s is not who it says: %s; name its root certificate in tls.acme.root, or another ca", a.name(), oneLine(last(err))), waitsUnreached}
	case errors.Is(err, context.DeadlineExceeded):
		return trouble{fmt.Sprintf("%s did not come to an end within %v; see whether it works", a.name(), orderTime), waitsUnreached}
	}
	return trouble{fmt.Sprintf("%s was not reached, or not understood: %s; see that this machine has a way to %s", a.name(), oneLine(last(err)), a.url()), waitsUnreached}
}

// detail is what the authority says, of a problem that stands for several the first.
func detail(p acme.Problem) string {
	text := p.Detail
	if len(p.Subproblems) > 0 {
		text = cmp.Or(p.Subproblems[0].Detail, text)
	}
	return cmp.Or(text, p.Title, strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace), "it says nothing more")
}

// remedy is what to do about a refusal.
func (a *acmeAuthority) remedy(host string, p acme.Problem) string {
	kind := p.Type
	if len(p.Subproblems) > 0 {
		kind = cmp.Or(p.Subproblems[0].Type, kind)
	}
	if strings.Contains(p.Detail, "Failed to connect") { // some call that unauthorized
		kind = acme.ProblemTypeConnection
	}
	switch kind {
	case acme.ProblemTypeDNS:
		return "give " + host + " an A or AAAA record with the address of this machine"
	case acme.ProblemTypeConnection, acme.ProblemTypeTLS:
		return fmt.Sprintf("see that ports 80 and 443 of %s lead to ports %d and %d of this machine", host, a.outside.http, a.outside.https)
	case acme.ProblemTypeUnauthorized, acme.ProblemTypeIncorrectResponse:
		return "see that the DNS records of " + host + ", all of them, lead to this machine, and that nothing in front answers for it"
	case acme.ProblemTypeCAA:
		return "let the CAA record of the domain of " + host + " name this authority"
	case acme.ProblemTypeRateLimited:
		return "it has a limit, which passes by itself"
	case acme.ProblemTypeRejectedIdentifier, acme.ProblemTypeUnsupportedIdentifier:
		return "it gives none for this name: remove tls: auto, or give cert and key"
	case acme.ProblemTypeInvalidContact, acme.ProblemTypeUnsupportedContact:
		return "mend email in tls.acme"
	case acme.ProblemTypeExternalAccountRequired:
		return "it wants an account that was made elsewhere, which Spillway cannot use: choose another ca"
	}
	if strings.HasPrefix(kind, acme.ProblemTypeNamespace+"server") {
		return "the trouble is at the authority, and passes"
	}
	return "see its documentation for " + strings.TrimPrefix(kind, acme.ProblemTypeNamespace)
}

// last is the innermost of errors, without what libraries put before it.
func last(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// oneLine makes a text from outside fit for a line of status.
func oneLine(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return strings.TrimSuffix(text, ".")
}

//go:build sim

package judge_test

import "testing"

// The tables of sim_test.go with the counts that they are published with. About fifteen minutes:
//
//	go test -tags sim -run Long -timeout 60m ./internal/judge

func TestLong_TakesFewRequests(t *testing.T) {
	for _, c := range powerCells {
		t.Run(c.String(), func(t *testing.T) { c.check(t, 4000) })
	}
}

func TestLong_SeldomBlamesAFairCandidate(t *testing.T) { checkFairWorlds(t, 8000, 50_000) }

func TestLong_CountsTheFirstErrorOfAUser(t *testing.T) { checkCrowd(t, 8000, 50_000) }

func TestLong_CertifiesSoon(t *testing.T) { checkCertificates(t, 4000, true) }

func TestLong_SeldomCertifiesAWorseCandidate(t *testing.T) {
	checkMisses(t, 8000, 20_000, []int{5, 10, 25, 50, 75, 90})
}

func TestLong_CatchesASlowCandidate(t *testing.T) { checkSlow(t, 2000, true) }

func TestLong_CatchesErrorsBesideLatency(t *testing.T) { checkErrorsBesideLatency(t, 2000, true) }

func TestLong_SeldomBlamesAFairPace(t *testing.T) { checkFairPaces(t, 4000, 20_000) }

func TestLong_CountsTheFirstSlowAnswerOfAUser(t *testing.T) { checkSlowCrowd(t, 4000, 20_000) }

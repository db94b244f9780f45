// answer says which release it is. Its environment tells how it misbehaves: CRASH, NEVER (ready), FAIL (500), SLOW.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	if os.Getenv("SPILLWAY_TASK") != "" {
		fmt.Println("migrating", os.Args[1:])
		if os.Getenv("TASK") == "fail" {
			log.Fatal("column exists already")
		}
		return
	}
	if os.Getenv("CRASH") != "" {
		log.Fatal("cannot find the settings")
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if os.Getenv("NEVER") != "" {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/backend", func(w http.ResponseWriter, _ *http.Request) {
		answer, err := http.Get(os.Getenv("BACKEND_URL"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		_, _ = io.Copy(w, answer.Body)
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if d, err := time.ParseDuration(r.FormValue("sleep") + os.Getenv("SLOW")); err == nil {
			time.Sleep(d)
		}
		if os.Getenv("FAIL") != "" {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, os.Getenv("SPILLWAY_SERVICE"), ".", os.Getenv("SPILLWAY_RELEASE"))
	})
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}

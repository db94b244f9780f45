// Command echo is what the tests deploy: it answers with its name, and fetches for whoever asks.
//
//	/            200 and the host's name, which is the pod's
//	/fetch?url=  what the pod gets there, or 502
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		io.WriteString(w, host+"\n")
	})
	http.HandleFunc("/fetch", func(w http.ResponseWriter, r *http.Request) {
		response, err := http.Get(r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		w.WriteHeader(response.StatusCode)
		io.Copy(w, response.Body)
	})
	log.Fatal(http.ListenAndServe(":8080", nil))
}

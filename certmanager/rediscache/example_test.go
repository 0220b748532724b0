package rediscache_test

import (
	"log"

	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager/rediscache"
)

func ExampleNew() {
	client := redis.NewClient(&redis.Options{Addr: "redis.internal:6379", ContextTimeoutEnabled: true})
	defer client.Close()
	var cache autocert.Cache = rediscache.New(client, "acme:")
	log.Printf("the Cache of acme.Source on every machine: %T", cache)
}

#!/usr/bin/env ruby
# Things to hold.

require "json"

# A shop.
module Shop
  # The most things.
  LIMIT = 10

  # A basket.
  class Basket < Container
    include Countable
    # How many.
    attr_reader :size, :label

    def initialize(size)
      @size = size
    end

    # Puts one in.
    def put(thing, times: 1, &block) = add(thing)

    def self.make
      Basket.new(1)
    end

    class << self
      def other; end
    end

    def +(other); end
    def empty?; size.zero?; end

    private

    def hidden
      JSON.parse(label)
    end
  end
end

def helper(x)
  Shop::Basket.new(x)
end
